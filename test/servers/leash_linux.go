package servers

import (
	"os/exec"
	"syscall"
)

// leash makes the kernel send sig to the child when the thread that forks it ends.
// The child gets a process group of its own: an interrupt typed at the terminal
// reaches us alone, and we end the servers in order.
func leash(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = sig
}
