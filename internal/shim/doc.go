// Package shim is the process beside each machine and the daemon's way to it.
//
// The process (`hale shim ID`, the same binary in a session of its own) is the hypervisor's parent. It owns what must
// not die with the daemon: the machine's network stack, its published ports, the console and the program's output
// (bounded, rotated files), the channel to the guest agent, QMP, and the exit status. It decides nothing about an instance: it is
// asked, over a Unix socket (package protocol), to stop, kill, probe, exec and stat, and it tells what happened.
//
// The daemon's side is Launcher, which starts machines and finds them again, and Machine, which is one of them.
//
// Who dies with whom: a shim that dies takes its machine down at once, for the kernel kills QEMU with its parent
// (PR_SET_PDEATHSIG); the record then says so. A daemon that dies leaves shims and machines running. A machine that ends is
// written to vm/run/exit.json by its shim, told to whoever is connected, and the shim ends too.
//
// Before the shim does anything, the daemon has written down its pid, start time and secret (instances/ID/shim.json);
// only then does the shim get its configuration. So nothing runs that a later daemon could not find.
package shim

import "time"

// Command is the hidden subcommand of the hale binary that runs a shim: `hale shim ID`.
const Command = "shim"

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)
