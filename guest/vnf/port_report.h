/* SPDX-License-Identifier: Apache-2.0 */
/* What the library says of a port, as JSON: "port" and "port_stats".  Control thread. */
#ifndef VNF_PORT_REPORT_H
#define VNF_PORT_REPORT_H 1

#include <p2plink/vnf.h>

#include "json.h"

void port_report_json(const struct p2p_port *port, struct json *j);

#endif /* port_report.h */
