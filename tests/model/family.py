# SPDX-License-Identifier: Apache-2.0
"""The family of models: variants, each with small bounds for --short and larger ones, and mutations.

A mutation is found by one of the properties in 'found_by', the first is the one that is meant."""

import re

import engine

# Each model's parameters: what a value means, and the value if nothing is said.
PARAMETERS = {
    "data.pml": {
        "NQA": ("{} queues of a", 1), "NQB": ("{} of b", 1), "PACKETS": ("{} packets a queue", 4),
        "FLIPS": ("{} stores of mode", 3), "EMPTIES": ("{} empty bursts", 0),
        "BURST_A": ("bursts of up to {} (a)", 2), "BURST_S": ("{} (PMD)", 2), "BURST_B": ("{} (b)", 2),
        "HOLD": ("reverts hold", 0), "OTHERS": ("{} packets of others", 0), "PMDS": ("{} PMDs", 1),
        "CAP": ("rings of {}", None), "MOD": ("indices modulo {}", 16), "FREE": ("polls at any time", None),
    },
    "life.pml": {
        "PACKETS": ("{} packets", 3), "WANTS": ("wanted {} times", 2), "LINKS": ("{} link regions", 2),
        "STOPS": ("b's application stops calling{}", 0), "STOPS_A": ("a's application stops calling", 0),
        "HOLDS": ("b keeps packets", 0), "COUNTS": ("counters late", 0), "BOTH_WAYS": ("the other direction too", 0),
        "HASTY": ("time limits pass at any time", 0), "ABORT": ("port a destroyed", 0), "HOLD": ("reverts hold", 0),
        "A_DIES": ("a dies", 0), "B_DIES": ("b dies", 0), "GUEST": ("in a guest", 0), "SW_DIES": ("vswitchd dies{}", 0),
        "AT": ("{}", 0),
        "ADOPT": ("adoption{}", 0),
    },
}
SPECIAL = {
    ("STOPS", 1): "", ("STOPS", 2): ", and calls again", ("SW_DIES", 1): "", ("SW_DIES", 2): " for good",
    ("AT", 1): "between an epoch's begin and its gate", ("AT", 2): "while it opens a channel", ("ADOPT", 1): "",
    ("ADOPT", 2): " of either or not",
}
ALWAYS = ("NQA", "NQB", "PACKETS", "FLIPS", "BURST_A", "BURST_S", "BURST_B", "WANTS", "LINKS")

# What each model's assertions say.
CHECKED = {
    "data.pml": ["order", "hold", "waiting", "rest"],
    "life.pml": ["order", "mapping", "counters", "rest"],
}


class Task:
    """One run of spin."""

    def __init__(self, name, model, words, defines, how=engine.SAFETY, found_by=(), optimise=2):
        self.name, self.model, self.words, self.defines = name, model, words, defines
        self.how, self.found_by, self.optimise = how, tuple(found_by), optimise
        self.mutation = name.startswith("M_")
        unknown = set(defines) - set(PARAMETERS[model])
        assert not unknown, unknown

    def all_defines(self):
        return {**self.defines, self.name.split(":")[0]: None} if self.mutation else self.defines

    def flags(self):
        return " ".join(f"-D{k}={v}" if v is not None else f"-D{k}" for k, v in self.all_defines().items())

    def checked(self):
        if self.how is engine.FAIR:
            return ["order", "formula"]
        return CHECKED[self.model] + (["no cycle"] if self.how is engine.NO_CYCLE else [])

    def bounds(self):
        said = []
        for name, (words, default) in PARAMETERS[self.model].items():
            value = self.defines.get(name, default)
            if name in self.defines and value is None:
                said.append(words)
            elif value and (name in self.defines or name in ALWAYS):
                said.append(words.format(SPECIAL.get((name, value), value)))
        text = re.sub(r"\b1 (queue|packet|store|empty burst|link region)s\b", r"1 \1", ", ".join(said))
        return text.replace("wanted 1 times", "wanted once").replace("wanted 2 times", "wanted twice")


def bursts(n):
    return {"BURST_A": n, "BURST_S": n, "BURST_B": n}


ONE = {"PACKETS": 3, "FLIPS": 3, **bursts(1)}
TWO = {"NQA": 2, "PACKETS": 2, "FLIPS": 1, **bursts(1)}
LINK = {"PACKETS": 2, "WANTS": 1, "LINKS": 1}
LINK_1 = {**LINK, "PACKETS": 1}

# Name, model, what it is about, bounds for --short, larger bounds.
VARIANTS = [
    ("one-queue", "data.pml", "one queue; vswitchd changes its mind",
     {"PACKETS": 3, "FLIPS": 3, **bursts(2)}, {"PACKETS": 6, "FLIPS": 5, **bursts(2)}),
    ("flapping", "data.pml", "epochs begun by bursts that put nothing anywhere",
     {"PACKETS": 2, "FLIPS": 4, "EMPTIES": 1, **bursts(1)}, {"PACKETS": 3, "FLIPS": 5, "EMPTIES": 2, **bursts(2)}),
    ("hold", "data.pml", "each revert holds a's normal ring",
     {"PACKETS": 3, "FLIPS": 2, "HOLD": 1, **bursts(2)}, {"PACKETS": 4, "FLIPS": 4, "HOLD": 1, **bursts(2)}),
    ("full-rings", "data.pml", "rings of two slots",
     {"PACKETS": 3, "FLIPS": 3, "CAP": 2, **bursts(2)}, {"PACKETS": 6, "FLIPS": 5, "CAP": 2, **bursts(2)}),
    ("wrap", "data.pml", "more packets of others than half of all indices",
     {"PACKETS": 2, "FLIPS": 1, "MOD": 8, "OTHERS": 5, **bursts(1)},
     {"PACKETS": 3, "FLIPS": 2, "MOD": 8, "OTHERS": 6, **bursts(1)}),
    ("two-to-one", "data.pml", "two queues of a's go to one of b's", {**TWO, "PACKETS": 1},
     {**TWO, "FLIPS": 2}),
    ("two-to-two", "data.pml", "two queues of a's go to two of b's", {**TWO, "PACKETS": 1, "NQB": 2},
     {**TWO, "NQB": 2}),
    ("two-pmds", "data.pml", "each of a's queues has a PMD of its own", {**TWO, "PACKETS": 1, "PMDS": 2},
     {**TWO, "PMDS": 2}),
    ("link", "life.pml", "a link is made, used, ended, and made again",
     {**LINK, "WANTS": 2}, {"PACKETS": 3, "WANTS": 2, "LINKS": 2, "BOTH_WAYS": 1}),
    ("counters", "life.pml", "counters are stored after the packets",
     {**LINK, "COUNTS": 1}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "COUNTS": 1}),
    ("link-hold", "life.pml", "who takes the link away holds a's normal ring",
     {**LINK, "HOLD": 1}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "HOLD": 1}),
    ("b-stops", "life.pml", "b's application stops calling for good",
     {**LINK, "STOPS": 1, "BOTH_WAYS": 1}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "STOPS": 1, "BOTH_WAYS": 1}),
    ("b-rests", "life.pml", "b's application stops calling for a while",
     {**LINK_1, "STOPS": 2}, {**LINK, "WANTS": 2, "STOPS": 2, "BOTH_WAYS": 1}),
    ("a-stops", "life.pml", "a's application stops calling",
     {**LINK, "STOPS_A": 1}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "STOPS_A": 1}),
    ("b-keeps", "life.pml", "b's application keeps packets before it releases them",
     {**LINK, "HOLDS": 1}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "HOLDS": 1}),
    ("hasty", "life.pml", "vswitchd does not wait for answers of those who live",
     {**LINK_1, "HASTY": 1}, {**LINK, "WANTS": 2, "HASTY": 1}),
    ("a-destroyed", "life.pml", "port a is destroyed, and another port's link to b begins at once",
     {**LINK_1, "LINKS": 2, "ABORT": 1}, {**LINK, "LINKS": 2, "ABORT": 1}),
    ("a-dies", "life.pml", "process a dies and comes back, to a fresh region",
     {**LINK_1, "A_DIES": 1}, {**LINK, "LINKS": 2, "A_DIES": 1}),
    ("a-dies-guest", "life.pml", "a dies in a guest and comes back, to the same region",
     {**LINK_1, "A_DIES": 1, "GUEST": 1}, {**LINK, "LINKS": 2, "A_DIES": 1, "GUEST": 1}),
    ("b-dies", "life.pml", "process b dies and comes back, to a fresh region",
     {**LINK_1, "B_DIES": 1}, {**LINK, "LINKS": 2, "B_DIES": 1}),
    ("b-dies-guest", "life.pml", "b dies in a guest and comes back, to the same region",
     {**LINK_1, "B_DIES": 1, "GUEST": 1}, {**LINK, "LINKS": 2, "B_DIES": 1, "GUEST": 1}),
    ("vswitchd-stays-dead", "life.pml", "vswitchd dies and does not come back",
     {**LINK_1, "SW_DIES": 2}, {"PACKETS": 2, "WANTS": 2, "LINKS": 2, "SW_DIES": 2}),
    ("vswitchd-dies", "life.pml", "vswitchd dies, comes back, and adopts nothing",
     {**LINK_1, "SW_DIES": 1, "AT": 1}, {**LINK, "SW_DIES": 1}),
    ("vswitchd-adopts", "life.pml", "vswitchd dies at any time, comes back, and adopts all",
     None, {**LINK_1, "SW_DIES": 1, "ADOPT": 1}),
    ("adopts-at-open", "life.pml", "the same while it opens a channel",
     None, {**LINK, "WANTS": 2, "SW_DIES": 1, "AT": 2, "ADOPT": 1}),
    ("adopts-some", "life.pml", "the same, and adopts either VNF or not",
     None, {**LINK_1, "SW_DIES": 1, "AT": 1, "ADOPT": 2}),
    ("adopts-at-gate", "life.pml", "the same while an epoch waits for its gate",
     {**LINK_1, "SW_DIES": 1, "AT": 1, "ADOPT": 1}, {**LINK, "SW_DIES": 1, "AT": 1, "ADOPT": 1}),
]
FORMULAS = [
    ("formula", "data.pml", "polls at any time; that all arrives is asked as a formula, under weak fairness",
     {"FREE": None, "PACKETS": 2, "FLIPS": 2, **bursts(1)}, {"FREE": None, "PACKETS": 4, "FLIPS": 4, **bursts(2)}),
    ("formula-two", "data.pml", "the same with two queues", None,
     {"FREE": None, "NQA": 2, "PMDS": 2, "PACKETS": 1, "FLIPS": 2, **bursts(1)}),
]

# Name, model, what is wrong, bounds, what finds it, in --short?
MUTATIONS = [
    # a's data thread.
    ("M_EPOCH_NOT_EMPTY", "data.pml", "an epoch begins though D is not empty",
     ONE, ["order"], True),
    ("M_SAME_EPOCH", "data.pml", "all epochs have the same number",
     ONE, ["order"], True),
    ("M_USING_KEPT", "data.pml", "a goes on in its epoch after it has used nA",
     ONE, ["order"], True),
    ("M_START_LATE", "data.pml", "start is stored after the epoch's first packet",
     ONE, ["waiting"], True),
    ("M_VSTART_LAZY", "data.pml", "the PMD's start is stored with the next normal burst only",
     ONE, ["waiting"], True),
    # The PMD.
    ("M_START_BEFORE_HEAD", "data.pml", "the PMD reads start before nA.head",
     ONE, ["order"], True),
    ("M_NA_BEYOND_CUT", "data.pml", "the PMD takes nA beyond cut before it has opened the gate",
     {**ONE, "BURST_S": 2}, ["order"], True),
    ("M_GATE_BEFORE_FLUSH", "data.pml", "the gate is opened while packets are in the output batch",
     ONE, ["order"], True),
    ("M_HOLD_BEFORE_HEAD", "data.pml", "the PMD asks for the hold before it reads nA.head",
     {**ONE, "HOLD": 1}, ["hold"], True),
    # b's data thread, and which queues are whose.
    ("M_D_BEFORE_N", "data.pml", "b reads D.head before nB.head",
     ONE, ["order"], True),
    ("M_D_AFTER_START", "data.pml", "b reads D.head after start",
     ONE, ["order"], True),
    ("M_GATE_BEFORE_N", "data.pml", "b reads the gate before nB.head",
     ONE, ["order"], True),
    ("M_NB_UPTO_N", "data.pml", "b takes nB up to n before D, not up to b_cut",
     ONE, ["order"], True),
    ("M_CUT_BEYOND_N", "data.pml", "b takes a b_cut beyond n as passed",
     ONE, ["order"], True),
    ("M_BUDGET_SKIPS", "data.pml", "a burst's end skips the rest of what was decided",
     ONE, ["order"], True),
    ("M_NO_PASSED", "data.pml", "b compares b_cut for ever",
     {"PACKETS": 2, "FLIPS": 1, "MOD": 8, "OTHERS": 5, **bursts(1)}, ["waiting", "order"], True),
    ("M_GATES_UNSORTED", "data.pml", "b serves open rings in the order of queues, not of b_cut",
     TWO, ["order"], False),
    ("M_QUEUE_MIXED", "data.pml", "the switch puts all queues' packets into b's first",
     {**TWO, "NQB": 2}, ["order", "waiting"], False),
    # The checks for things that go on for ever.
    ("M_VSTART_LAZY:formula", "data.pml", "as above, asked as a formula",
     {"FREE": None, "PACKETS": 2, "FLIPS": 1, **bursts(1)}, ["formula"], True),
    ("M_NO_BELLS", "data.pml", "threads poll in vain for ever",
     ONE, ["no cycle"], True),
    # A link's life.
    ("M_ACK_BEFORE_GRACE", "life.pml", "a acknowledges mode without a grace period",
     LINK, ["rest"], True),
    ("M_COUNTED_OUTSIDE", "life.pml", "a's counters are stored after the end of the reader's section",
     {**LINK, "COUNTS": 1}, ["counters"], True),
    ("M_NO_DRAIN", "life.pml", "b answers DRAIN though D is not empty",
     LINK, ["rest"], True),
    ("M_LAST_KEPT", "life.pml", "a channel is served again only up to where it ended before",
     {**LINK, "WANTS": 2}, ["rest"], True),
    ("M_EPOCH_NOT_REOPENED", "life.pml", "a channel is opened again without the PMD opening its gate again",
     {**LINK, "WANTS": 2}, ["rest"], True),
    ("M_LEFTOVERS_KEPT", "life.pml", "a channel is used again though packets were left in it",
     {**LINK, "WANTS": 2, "STOPS": 1, "BOTH_WAYS": 1}, ["rest"], False),
    ("M_COUNTED_EARLY", "life.pml", "what is left is counted before b has answered DROP",
     {**LINK, "STOPS": 2}, ["rest"], True),
    ("M_DRAINED_IN_HOLD", "life.pml", "the time limit of DRAIN passes while nA is held",
     {**LINK, "HOLD": 1}, ["rest"], True),
    ("M_NO_REPLACE_GRACE", "life.pml", "b's channel is replaced without a grace period",
     {**LINK, "LINKS": 2, "ABORT": 1}, ["mapping"], True),
    ("M_NO_UNMAP_GRACE", "life.pml", "b unmaps a link region without a grace period",
     {**LINK, "HASTY": 1}, ["mapping"], True),
    # Deaths.
    ("M_GATES_KEPT", "life.pml", "b's gates are not cleared before another link",
     {**LINK, "LINKS": 2, "A_DIES": 1}, ["order"], False),
    ("M_NO_GATE_GRACE", "life.pml", "a link ends while a PMD may be opening its gate",
     {**LINK, "LINKS": 2, "A_DIES": 1}, ["order"], False),
    ("M_NOT_QUIET", "life.pml", "a is let in again before its former link is over",
     {**LINK, "A_DIES": 1, "GUEST": 1}, ["rest"], False),
    ("M_START_ZEROED_EARLY", "life.pml", "a, back in a guest, clears start before it is accepted",
     {**LINK, "A_DIES": 1, "GUEST": 1}, ["rest"], True),
    ("M_TAKEN_TOO_EARLY", "life.pml", "nA is taken beyond cut before it is clear whose gate an epoch is for",
     {**LINK, "SW_DIES": 1, "AT": 1, "ADOPT": 1}, ["order"], False),
    ("M_REOPENED_LATE", "life.pml", "the ledger says ACTIVE before the PMD's gate is forgotten",
     {**LINK, "WANTS": 2, "SW_DIES": 1, "AT": 2, "ADOPT": 1}, ["rest"], False),
]

# Those that --short searches for cycles, too; the long run does with all.
CYCLES = ("one-queue", "wrap", "two-to-one", "counters", "link-hold", "b-keeps")
# Those that --short has no time for.
LONG_ONLY = ("a-destroyed", "a-dies", "b-dies")


def tasks(short):
    found = []
    for name, model, words, small, large in VARIANTS:
        if small and not (short and name in LONG_ONLY):
            how = engine.NO_CYCLE if not short or name in CYCLES else engine.SAFETY
            found.append(Task(name, model, words, small, how, optimise=0 if short else 1))
        if not short:
            found.append(Task(f"{name}-long" if small else name, model, words, large))
    for name, model, words, small, large in FORMULAS:
        if small:
            found.append(Task(name, model, words, small, engine.FAIR, optimise=0))
        if not short:
            found.append(Task(f"{name}-long" if small else name, model, words, large, engine.FAIR))
    for name, model, words, defines, found_by, in_short in MUTATIONS:
        if in_short or not short:
            how = (engine.FAIR if "formula" in found_by else engine.NO_CYCLE if "no cycle" in found_by
                   else engine.SAFETY)
            found.append(Task(name, model, words, defines, how, found_by, optimise=0 if in_short else 2))
    return found
