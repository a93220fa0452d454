# SPDX-License-Identifier: Apache-2.0
"""A lab for chains of VNFs: a private Open vSwitch, VNFs as processes or in guests, and accounts of every packet.

Used by scripts/demo.py and tests/e2e; standard library only.  Whatever a lab starts, it ends, also when it is
interrupted or fails; it needs root, and changes nothing outside its own folder and network namespace but the number of
huge pages, for as long as it runs.

    lab.py        the lab: folder, huge pages, switch, VNFs; what to keep of it after a failure
    ovs.py        ovsdb-server and ovs-vswitchd, and what one asks of them
    parse.py      what ovs-ofctl prints
    unixctl.py    ovs-appctl's protocol, for those who ask often
    openflow.py   flow-mods and barriers on a connection of one's own
    vnf.py        a VNF and its line protocol; process.py and guest.py run it
    agent.py      p2plinkd, where there are guests; qmp.py: without it
    chain.py      ports, rules and VNFs as one: start, rest, wait for links
    accounts.py   do all counters agree?
    watch.py      do counters go backwards?
    hugepages.py, proc.py, signals.py, waiting.py, build.py, tap.py
"""
