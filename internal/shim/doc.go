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
// The host's disk may be full. The hypervisor stops the guest whose write finds no room, in the middle of it; the shim tries every second
// or so to go on, and tells once that the machine stands still and once that it goes on. Meanwhile a probe is inconclusive (disk_full).
// The instance is Running all the time: nothing of its own has changed. Whatever a guest's agent was asked for and has not answered
// for 10 s fails, as ever.
//
// A program that ends closes its connections, and its port refuses, some time before its end can be told. So a check that failed asks the
// agent whether the program is ending, and is inconclusive if it is.
//
// What a shim has to say to a person goes into the instance's own log, as a notice of kind machine.Told: a voice says lines at a bounded
// rate, and each line goes to one daemon, later if none is there. A machine.Notice of the other kinds is told to every daemon.
//
// The daemon names the port that is checked (Watch), and the guest's agent tells where that is listened on. A change that matters to a check is
// a notice of kind machine.Hinted, for one daemon, like a line: at a bounded rate, and only the newest waits. The first frame from the
// guest is a notice, too, and the first probe's SYN waits for it (docs/design/0008-hints-from-the-guest.md).
//
// A daemon that finds a shim which does not answer asks again for half a minute; then the shim is killed, and its machine with it. One that
// answers and speaks no version of the protocol that the daemon does is left alone, for a daemon that does, until a person has it killed.
//
// Before the shim does anything, the daemon has written down its pid, start time and secret (instances/ID/shim.json);
// only then does the shim get its configuration. So nothing runs that a later daemon could not find.
package shim

import "time"

// Command is the hidden subcommand of the hale binary that runs a shim: `hale shim ID`.
const Command = "shim"

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)
