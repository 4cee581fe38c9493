//go:build !linux

package servers

import (
	"os/exec"
	"syscall"
)

// leash gives the child a process group of its own: an interrupt typed at the
// terminal reaches us alone, and we end the servers in order. Only Linux can end
// a child when its parent is killed; elsewhere it must then be ended by hand.
func leash(cmd *exec.Cmd, _ syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
