// Package sandbox shuts processes in: the shim beside each machine, and more narrowly the hypervisor that it starts.
//
// There are layers, and each is used where the kernel here has it (Detect says which it has):
//
//   - a uid of its own for each machine, where the daemon is root (Range, Claim);
//   - a user namespace that maps that one uid (Identity), and in it empty ones for the network and for IPC for the hypervisor;
//   - no capabilities, no_new_privs, and no tracing of the shim (Harden);
//   - Landlock rules for files, TCP ports, signals and abstract sockets (Rules);
//   - a seccomp filter that makes no socket and no namespace, and reaches nothing of the kernel that a hypervisor has no use for;
//   - no descriptor that it was not meant to have.
//
// The hypervisor is confined by this program itself, started again under another name (Confinement): it takes away from
// itself what it must not have, and becomes the hypervisor. That begins in this package's init, before main, so every
// program that has the package in it can do it.
//
// What changes every thread of a process needs a program without cgo, as hale is built: elsewhere it is an error.
//
// The package knows no machine and no hypervisor.
package sandbox
