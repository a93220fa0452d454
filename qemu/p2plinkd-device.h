/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine that plugs a region into a VM and unplugs it: what p2plinkd-vm.c needs of p2plinkd-device.c, beside
 * the public vm_plug() and vm_unplug().  Only these two files include this header.
 */
#ifndef P2PLINKD_DEVICE_H
#define P2PLINKD_DEVICE_H 1

#include "p2plinkd-vm.h"

/* PCIe: a place for one device. */
struct vm_root_port {
    char *id;
    uint64_t fits;   /* The largest BAR that is sure to have room. */
};

/* p2plinkd-device.c */
struct vm_device *device_create(struct vm *, const char *id, const struct vm_region *);
/* Forgets the device.  Those who wait for its end are told 'unplug_error'; those who wait for it, 'plug_error'. */
void device_destroy(struct vm_device *, int plug_error, int unplug_error, const char *text);
void device_set_state(struct vm_device *, enum vm_device_state);
/* Asks the guest to let go. */
void device_unplug(struct vm_device *);
/* Its PCI device is not there any more: removes its memory. */
void device_remove_object(struct vm_device *);
/* QEMU says that its PCI device is gone. */
void device_deleted(struct vm_device *);
/* The connection is lost: nobody knows what QEMU has. */
void device_lost(struct vm_device *, const char *why);
void device_run(struct vm_device *);
void device_wait(const struct vm_device *);
/* Begins with the next queued device, if none is being plugged. */
void vm_plug_next(struct vm *);
void vm_remove_fdset(struct vm *, int64_t fdset);

/* p2plinkd-vm.c */
void vm_set_trouble(struct vm *, const char *fmt, ...) OVS_PRINTF_FORMAT(2, 3);

#endif /* p2plinkd-device.h */
