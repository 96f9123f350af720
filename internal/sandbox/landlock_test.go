package sandbox

import "testing"

// Each ABI is asked only for what it knows.
func TestRights(t *testing.T) {
	const all = Read | Execute | Write | Manage | Ioctl
	for _, c := range []struct {
		abi        int
		handled    uint64
		dir, file  uint64
		reopenFile uint64
	}{
		{1, 0x1fff, 0x32f, 0x7, 0x4},
		{2, 0x3fff, 0x32f, 0x7, 0x4},
		{3, 0x7fff, 0x432f, 0x4007, 0x4},
		{4, 0x7fff, 0x432f, 0x4007, 0x4},
		{5, 0xffff, 0xc32f, 0xc007, 0x4},
		{7, 0xffff, 0xc32f, 0xc007, 0x4},
	} {
		if got := handledFS(c.abi); got != c.handled {
			t.Errorf("ABI %d handles %#x, not %#x", c.abi, got, c.handled)
		}
		if got := all.rights(c.abi, true); got != c.dir || got&^c.handled != 0 {
			t.Errorf("ABI %d, a directory: %#x, not %#x", c.abi, got, c.dir)
		}
		if got := all.rights(c.abi, false); got != c.file {
			t.Errorf("ABI %d, a file: %#x, not %#x", c.abi, got, c.file)
		}
		if got := Read.rights(c.abi, false); got != c.reopenFile {
			t.Errorf("ABI %d, to read a file: %#x", c.abi, got)
		}
	}
}

// The kernel here takes a ruleset of every ABI up to its own.
func TestRulesetsOfOlderKernels(t *testing.T) {
	needLandlock(t)
	newest, _ := landlockABI()
	for abi := 1; abi <= newest; abi++ {
		rs, err := newRuleset(abi, libraries, true)
		if err != nil {
			t.Errorf("ABI %d: %v", abi, err)
			continue
		}
		rs.close()
	}
}
