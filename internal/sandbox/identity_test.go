package sandbox

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSysProcAttr(t *testing.T) {
	id := Identity{UID: 0x7a000001, Groups: []uint32{106}}
	attr := id.SysProcAttr(true)
	if attr.Cloneflags != syscall.CLONE_NEWUSER || fmt.Sprint(attr.UidMappings) != "[{2046820353 2046820353 1}]" ||
		fmt.Sprint(attr.GidMappings) != "[{106 106 1} {2046820353 2046820353 1}]" || fmt.Sprint(attr.AmbientCaps) != fmt.Sprint([]int{unix.CAP_SYS_ADMIN}) {
		t.Errorf("a uid of its own: %+v", attr)
	}
	if c := attr.Credential; c == nil || c.Uid != id.UID || c.Gid != id.UID || fmt.Sprint(c.Groups) != "[106]" {
		t.Errorf("its credential: %+v", c)
	}
	if attr := id.SysProcAttr(false); attr.Cloneflags != 0 || attr.AmbientCaps != nil || attr.Credential == nil || attr.Credential.Uid != id.UID {
		t.Errorf("without a namespace: %+v", attr)
	}
	own := Identity{}
	attr = own.SysProcAttr(true)
	if os.Geteuid() == 0 {
		if attr.Cloneflags != 0 || attr.AmbientCaps != nil {
			t.Errorf("root itself gets a namespace, and is root in it: %+v", attr)
		}
	} else if fmt.Sprint(attr.UidMappings) != fmt.Sprintf("[{%d %[1]d 1}]", os.Geteuid()) || attr.Credential != nil || attr.GidMappingsEnableSetgroups {
		t.Errorf("the user's own: %+v", attr)
	}
	if !attr.Setsid || !own.SysProcAttr(false).Setsid {
		t.Error("no session of its own")
	}
}
