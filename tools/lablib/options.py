# SPDX-License-Identifier: Apache-2.0
"""Command line options that tools/lab and tools/bench share."""

from .base import LabError

LINE_DEFAULTS = {"rtt": 0.2, "rate": 1000, "loss": 0, "queue": 50}


def add_line(parser, defaults=None):
    """The line; without defaults, only what is given is set."""
    defaults = defaults or {}
    parser.add_argument("--rtt", type=float, metavar="MS", default=defaults.get("rtt"),
                        help="round trip time")
    parser.add_argument("--rate", type=float, metavar="MBIT", default=defaults.get("rate"),
                        help="Mbit/s each way")
    parser.add_argument("--loss", type=float, metavar="PCT", default=defaults.get("loss"),
                        help="packets lost, in percent")
    parser.add_argument("--queue", type=float, metavar="MS", default=defaults.get("queue"),
                        help="longest wait before the wire")


def add_up(p):
    """How the sites are made."""
    p.add_argument("--no-offload", action="store_true", help="single packets on the line, always")
    p.add_argument("--seed", type=int, default=1, help="of the line's losses")
    p.add_argument("--tcp-buffers-mib", type=int, metavar="MIB", help="largest TCP buffers at both sites")
    p.add_argument("--no-ferryd", dest="ferryd", action="store_false", default=True,
                   help="libvirt only")
    p.add_argument("--conf", action="append", default=[], metavar="SECTION.KEY=VALUE",
                   help="a setting of ferryd at both sites; may be repeated")
    p.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="how guests run")
    p.add_argument("--postcopy", action="store_true",
                   help="allow post-copy: sets vm.unprivileged_userfaultfd=1 until 'down'")


def add_guest(p):
    """What a guest is made of."""
    p.add_argument("--memory", type=int, metavar="MIB", default=512)
    p.add_argument("--vcpus", type=int, metavar="N", default=1)
    p.add_argument("--disk", type=int, metavar="MIB", default=1024, help="size of each disk, sparse")
    p.add_argument("--disks", type=int, metavar="N", default=1)
    p.add_argument("--format", choices=("raw", "qcow2"), default="raw")
    p.add_argument("--files", type=int, metavar="MB", default=0, help="real files on the first disk")
    p.add_argument("--dirty", type=float, metavar="MIB/S", default=0, help="memory rewritten per second")
    p.add_argument("--dirty-set", type=int, metavar="MIB", default=64, help="memory that is rewritten")
    p.add_argument("--fill", type=int, metavar="MIB", default=0, help="memory filled once")
    p.add_argument("--change", type=int, metavar="BYTES", default=4096,
                   help="bytes of a page that change when it is rewritten")
    p.add_argument("--iops", type=float, metavar="N", default=100, help="synchronous 4 KiB writes per second")


def parse_pair(text, form):
    key, equals, value = text.partition("=")
    if not equals:
        raise LabError(f"'{text}' is not of the form {form}")
    return key, value


def parse_conf(items):
    """The --conf options as a dict."""
    form = "--conf SECTION.KEY=VALUE"
    pairs = dict(parse_pair(item, form) for item in items)
    for key in pairs:
        if "." not in key:
            raise LabError(f"'{key}' names no section; the form is {form}")
    return pairs
