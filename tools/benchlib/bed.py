# SPDX-License-Identifier: Apache-2.0
"""The lab and the guest a bench works on: brought up for it when none is up, and gone afterwards."""

import contextlib

from lablib.guest import Guest
from lablib.lab import Lab
from lablib.line import SETTINGS


@contextlib.contextmanager
def lab_for(args, say):
    """The lab that is up, with the line set as wanted and put back afterwards; else one of our own."""
    lab = Lab()
    settings = {key: getattr(args, key) for key in SETTINGS}
    if lab.record_file.exists():
        before = lab.line.stats()
        lab.line.set(**settings)
        try:
            yield lab
        finally:
            lab.line.set(**{key: before[key] for key in SETTINGS})
        return
    # What an earlier move left at the target would flatter the next.
    if not any(word.startswith("storage.use_seeds=") for word in args.conf):
        args.conf = [*args.conf, "storage.use_seeds=no"]
    say("bringing the lab up")
    lab.up(settings, args)
    try:
        yield lab
    finally:
        lab.down()


@contextlib.contextmanager
def guest_for(lab, args, say, name="bench"):
    guest = Guest(lab, name)
    say("booting the guest")
    guest.start(args)
    try:
        yield guest
    finally:
        guest.stop()
