# SPDX-License-Identifier: Apache-2.0
"""What people pipe bytes through today, over loopback inside a site: ssh, and socat with TLS."""

import os
import pathlib
import subprocess
import tempfile
import time

from lablib.base import LabError

PORT = 7998


def _count(pipe, seconds):
    """Mbit/s out of a pipe, after half a second of start."""
    start = time.monotonic()
    bytes_, begin = 0, None
    while (now := time.monotonic()) < start + seconds:
        n = len(os.read(pipe.fileno(), 2**20))
        if n == 0:
            raise LabError("the pipe ended early")
        if begin is None and now > start + 0.5:
            begin, bytes_ = now, 0
        bytes_ += n
    return bytes_ * 8 / 1e6 / (now - begin)


def _run(site, server, client, seconds):
    """Counts what the client prints: zeroes, the cheapest there is, since none of the two compresses."""
    processes = [subprocess.Popen(site.enter(server), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)]
    try:
        time.sleep(1)
        processes.append(subprocess.Popen(site.enter(client), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
        return _count(processes[1].stdout, seconds)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def ssh_mbit(site, seconds):
    with tempfile.TemporaryDirectory(prefix="ferry-ssh-") as name:
        folder = pathlib.Path(name)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        server = ["/bin/sh", "-c",
                  f"mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f /dev/null -p {PORT} -h {folder}/host "
                  f"-o ListenAddress=127.0.0.1 -o AuthorizedKeysFile={folder}/authorized -o StrictModes=no "
                  f"-o PidFile={folder}/pid -o UsePAM=yes"]
        client = ["ssh", "-p", str(PORT), "-i", folder / "user", "-o", "StrictHostKeyChecking=no", "-o",
                  "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-c", "aes128-gcm@openssh.com",
                  "root@127.0.0.1", "cat /dev/zero"]
        return _run(site, server, client, seconds)


def socat_mbit(site, seconds):
    with tempfile.TemporaryDirectory(prefix="ferry-socat-") as name:
        folder = pathlib.Path(name)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-subj", "/CN=bench", "-days", "2", "-keyout", folder / "key", "-out", folder / "cert"],
                       check=True, stderr=subprocess.DEVNULL)
        server = ["socat", "-u", "-b", "131072", "OPEN:/dev/zero",
                  f"OPENSSL-LISTEN:{PORT},bind=127.0.0.1,reuseaddr,cert={folder}/cert,key={folder}/key,verify=0"]
        client = ["socat", "-u", "-b", "131072", f"OPENSSL:127.0.0.1:{PORT},verify=0", "STDOUT"]
        return _run(site, server, client, seconds)
