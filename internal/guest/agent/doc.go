// Package agent is the server at the guest's end of the agent channel: it runs the image's program, runs commands beside
// it, and tells the host what becomes of them.
//
// What makes it PID 1 of a machine (mounts, modules, network, power) is behind the [Machine] interface, in the package
// pid1; the agent itself is an ordinary process and is tested as one.
//
// One goroutine each serves the control port, the bulk port and the program's output; one lives the program's life, from
// the host's Boot to the power off; each exec has one, and its copiers. A panic in any of them is written to the log with
// its stack, told to the host, and ends the machine: a guest that cannot be asked is worth less than one that says why
// it is gone. What is asked for in a session ends with it: when another host says HELLO, the commands of the one before
// are killed.
//
// A session may watch one port, which is looked up in /proc/net/tcp and tcp6 at a pace (ports.go): nothing is told of any other.
//
// Children are reaped in one place (reap.go). Every exec, and the program, has a cgroup of its own, which is how all of
// it is killed; where the agent may not make one (a test, an ordinary user) a process group stands in.
package agent
