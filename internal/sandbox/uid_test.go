package sandbox

import (
	"os"
	"strings"
	"testing"
)

func TestParseRange(t *testing.T) {
	for s, want := range map[string]Range{
		"": DefaultRange, "100000-165535": {100000, 165535}, "65536-65551": {65536, 65551},
	} {
		if r, err := ParseRange(s); err != nil || r != want {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"x", "1-", "-", "0-100", "1000-2000", "70000-70001", "80000-70000", "70000-4294967295", "70000-99999999999", "70000", "-70000-80000", "70000-80000-90000"} {
		if r, err := ParseRange(s); err == nil {
			t.Errorf("%q is accepted: %v", s, r)
		}
	}
	if r, err := ParseRange(DefaultRange.String()); err != nil || r != DefaultRange {
		t.Errorf("the default reads back as %v, %v", r, err)
	}
}

func TestReadIDs(t *testing.T) {
	passwd, err := readIDs(strings.NewReader("root:x:0:0:root:/root:/bin/sh\n\n# no\n+::::::\nbad:x:y:0\nhale:x:2046820352:1::/:/\n"), 2, 0)
	if err != nil || len(passwd) != 2 || !passwd.contain(0) || !passwd.contain(0x7a000000) || passwd.contain(1) {
		t.Errorf("%v, %v", passwd, err)
	}
	subuid, err := readIDs(strings.NewReader("a:100000:65536\nb:200000:0\nc:x:1\nd:4294967290:100\n"), 1, 2)
	if err != nil || !subuid.contain(100000) || !subuid.contain(165535) || subuid.contain(165536) || subuid.contain(200000) || !subuid.contain(1<<32-1) {
		t.Errorf("%v, %v", subuid, err)
	}
}

func TestSearch(t *testing.T) {
	r := Range{100000, 100015}
	all := func(uint32) (bool, error) { return true, nil }
	none := func(uint32) bool { return false }
	if uid, err := r.search(100003, none, all); uid != 100003 || err != nil {
		t.Errorf("the preferred one is free: %d, %v", uid, err)
	}
	if uid, err := r.search(5, none, all); !r.Contains(uid) || err != nil {
		t.Errorf("the preferred one is not of the range: %d, %v", uid, err)
	}
	if uid, err := r.search(100003, none, func(uid uint32) (bool, error) { return uid == 100007, nil }); uid != 100007 || err != nil {
		t.Errorf("one is free: %d, %v", uid, err)
	}
	if uid, err := r.search(0, func(uid uint32) bool { return uid != 100009 }, all); uid != 100009 || err != nil {
		t.Errorf("one is not taken: %d, %v", uid, err)
	}
	if uid, err := r.search(0, func(uint32) bool { return true }, all); err == nil {
		t.Errorf("all are taken: %d", uid)
	}
	if _, err := r.search(0, none, func(uint32) (bool, error) { return false, os.ErrPermission }); err == nil {
		t.Error("an error is no uid")
	}
}

// Claims of one host never share, however many directories ask, and end with their last descriptor.
func TestClaim(t *testing.T) {
	defer func(was string) { lockDir = was }(lockDir)
	lockDir = t.TempDir()
	r := Range{0x7a000000, 0x7a00000f}
	none := func(uint32) bool { return false }
	claims := map[uint32]*os.File{}
	for range 16 {
		uid, f, err := r.Claim(r.First, none)
		if err != nil {
			t.Fatal(err)
		}
		if claims[uid] != nil {
			t.Fatalf("uid %d is given twice", uid)
		}
		claims[uid] = f
	}
	if uid, _, err := r.Claim(0, none); err == nil {
		t.Fatalf("a seventeenth of sixteen: %d", uid)
	}
	again, err := os.Open("/proc/self/fd/" + itoa(int(claims[r.First+5].Fd()))) // another open file: no claim
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	claims[r.First+5].Close()
	uid, f, err := r.Claim(r.First+5, none)
	if err != nil || uid != r.First+5 {
		t.Fatalf("after its end: %d, %v", uid, err)
	}
	f.Close()
	for _, f := range claims {
		f.Close()
	}
}
