package image

import (
	"archive/tar"
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// A stacked case is layers, and what overlayfs shows for them is in testdata/golden.
type stacked struct {
	name   string
	layers [][]entry
	// alone: overlayfs is not asked, for an entry leads into another layer, which no extraction into directories can do,
	// or for the root is opaque, which it ignores.
	alone bool
}

const (
	capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	// u::rw-,u:1000:r--,g::r--,m::r--,o::r--, as getxattr(2) shows it
	acl = "\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
)

var stacks = []stacked{
	{name: "hard links, one replaced", layers: [][]entry{
		{file("a", "old"), hardlink("b", "a"), hardlink("c", "a")},
		{file("a", "new")},
	}},
	{name: "hard links, one deleted", layers: [][]entry{
		{file("a", "old"), hardlink("b", "a")},
		{whiteout("a")},
	}},
	{name: "hard links, all deleted and one new", layers: [][]entry{
		{file("a", "old"), hardlink("b", "a")},
		{whiteout("a"), whiteout("b"), file("c", "new"), hardlink("d", "c")},
	}},
	{name: "hard links of everything but directories", layers: [][]entry{{
		symlink("s", "nowhere"), hardlink("s2", "s"), device(tar.TypeChar, "null", 1, 3), hardlink("null2", "null"),
		entryOf(tar.TypeFifo, "p", "", 0o600), hardlink("p2", "p"), dir("d"), hardlink("d/p3", "./p2"), hardlink("null3", "/null2"),
	}}},
	{name: "hard links in one layer, the target replaced after", layers: [][]entry{{
		file("a", "first"), hardlink("b", "a"), file("a", "second"), hardlink("c", "a"),
	}}},
	{name: "hard links into lower layers", alone: true, layers: [][]entry{
		{file("a", "old"), hardlink("b", "a")},
		{hardlink("c", "a"), file("a", "new"), hardlink("d", "c")},
		{whiteout("b"), hardlink("e", "d")},
	}},
	{name: "symbolic links", layers: [][]entry{{
		symlink("absolute", "/etc/../x"), symlink("climbs", "../../../../etc/passwd"), symlink("self", "self"),
		symlink("short", strings.Repeat("s", 59)), symlink("long", strings.Repeat("l", 60)),
		symlink("longer", strings.Repeat("../", 400)+"x"), symlink("odd", "a//b/./c/"),
	}}},
	{name: "whiteouts", layers: [][]entry{
		{file("f", "1"), dir("d"), file("d/x", "1"), file("d/y", "1"), dir("e"), dir("e/deep"), file("e/deep/x", "1"), file("kept", "1")},
		{whiteout("f"), whiteout("d/x"), whiteout("e"), whiteout("nothing"), whiteout("none/of/this")},
		{file("f", "3"), file("e/x", "3")},
	}},
	{name: "odd whiteouts", layers: [][]entry{
		{file("f", "1"), dir("d"), file("d/x", "1")},
		{file(".wh.", ""), file("d/.wh..", ""), file("d/.wh...", ""), file("d/.wh..wh.plnk", ""), file(".wh..wh.aufs", ""), file("d/.wh..wh..wh.", "")},
	}},
	{name: "a whiteout beside what it names", layers: [][]entry{
		{dir("before"), file("before/old", "1"), dir("after"), file("after/old", "1"), file("f", "1"), dir("g"), file("g/old", "1")},
		{whiteout("before"), dir("before"), file("before/new", "2"), dir("after"), file("after/new", "2"), whiteout("after"), whiteout("f"), file("f", "2"), whiteout("g"), file("g", "2")},
	}},
	{name: "opaque directories", layers: [][]entry{
		{dir("a").mode(0o700), file("a/old", "1"), dir("a/sub"), file("a/sub/old", "1"), dir("b"), file("b/old", "1"), dir("c"), dir("c/sub"), file("c/sub/old", "1")},
		{opaque("a"), file("a/new", "2"), dir("b").mode(0o711), file("b/new", "2"), opaque("b"), opaque("c/sub"), opaque("nowhere")},
		{file("a/sub/newer", "3")},
	}},
	{name: "an opaque root", alone: true, layers: [][]entry{
		{file("old", "1"), dir("d"), file("d/old", "1")},
		{file(opaqueMarker, ""), file("d/new", "2")},
	}},
	{name: "the whiteout of overlayfs", layers: [][]entry{
		{file("f", "1"), dir("d"), file("d/x", "1")},
		{device(tar.TypeChar, "f", 0, 0), device(tar.TypeChar, "d", 0, 0), device(tar.TypeChar, "nothing", 0, 0), device(tar.TypeBlock, "block", 0, 0)},
	}},
	{name: "a symbolic link below, a directory above", layers: [][]entry{
		{dir("usr"), dir("usr/lib"), file("usr/lib/old", "1"), symlink("lib", "usr/lib")},
		{file("lib/new", "2")},
	}},
	{name: "symbolic links to directories in one layer", layers: [][]entry{
		{dir("real"), file("real/old", "1"), symlink("real/up", ".."), dir("other")},
		{dir("real"), symlink("rel", "real"), symlink("abs", "/real"), symlink("out", "../../../real"), symlink("dangling", "made/here"),
			file("rel/a", "2"), file("abs/b", "2"), file("out/c", "2"), file("dangling/d", "2"), symlink("chain", "rel"), file("chain/e", "2"), whiteout("chain/old")},
	}},
	{name: "one kind becomes another", layers: [][]entry{
		{file("f", "1"), dir("d"), file("d/x", "1"), symlink("s", "d"), dir("e"), file("e/x", "1"), file("g", "1")},
		{dir("f"), file("f/x", "2"), file("d", "2"), dir("s"), symlink("e", "f"), device(tar.TypeBlock, "g", 8, 1)},
		{file("f", "3"), dir("d"), file("d/y", "3"), dir("e"), file("g", "3")},
	}},
	{name: "one kind becomes another in one layer", layers: [][]entry{{
		file("f", "1"), dir("f"), file("f/x", "1"), dir("d"), file("d/x", "1"), file("d", "2"), dir("e").mode(0o700), file("e/x", "1"), dir("e").mode(0o751),
		file("twice", "1").mode(0o600), file("twice", "2").mode(0o640), symlink("l", "a"), symlink("l", "b"),
	}}},
	{name: "metadata of directories", layers: [][]entry{
		{entryOf(tar.TypeDir, "./", "", 0o711).owner(5, 6), dir("a").mode(0o1777).xattr("user.a", "1"), file("a/x", "1"), dir("b").mode(0o2750).owner(7, 8), file("implicit/x", "1")},
		{dir("a").mode(0o700).time(5, 6).xattr("user.b", "2"), file("b/y", "2"), file("implicit/y", "2")},
		{entryOf(tar.TypeDir, "/", "", 0o755).owner(1, 2), dir("implicit").mode(0o500)},
	}},
	{name: "attributes", layers: [][]entry{{
		file("capable", "x").xattr("security.capability", capability),
		file("many", "x").xattr("user.zz", strings.Repeat("z", 90)).xattr("user.a", strings.Repeat("a", 91)).xattr("security.s", strings.Repeat("s", 92)).
			xattr("trusted.t", "").xattr("user.bb", "b"),
		file("large", "x").xattr("user.large", strings.Repeat("v", 3000)),
		file("acl", "x").xattr(aclAccess, acl).mode(0o644), dir("acls").xattr(aclDefault, acl),
		dir("opaque").xattr("trusted.overlay.opaque", "n"), file("foreign", "x").xattr("com.apple.quarantine", "q"),
	}}},
	{name: "modes, owners and times", layers: [][]entry{{
		file("setuid", "x").mode(0o4755), file("setgid", "x").mode(0o2755), dir("sticky").mode(0o1777), file("none", "x").mode(0),
		file("owner", "x").owner(1000, 2000), file("large owner", "x").owner(4_000_000_000, 4_294_967_294),
		file("before 1970", "x").time(-315_619_200, 500), file("1901", "x").time(-1<<31, 0), file("after 2038", "x").time(2_524_608_000, 999_999_999),
		file("after 2106", "x").time(4_417_977_600, 7), file("zero", "x").time(0, 0),
	}}},
	{name: "devices and fifos", layers: [][]entry{{
		device(tar.TypeChar, "null", 1, 3).mode(0o666), device(tar.TypeBlock, "disk", 259, 65_537), device(tar.TypeChar, "most", 4095, 1_048_575),
		entryOf(tar.TypeFifo, "pipe", "", 0o640),
	}}},
	{name: "names", layers: [][]entry{{
		file("../../climbs", "x"), file("/absolute", "x"), file("./a/./b/../c", "x"), file(strings.Repeat("n", 255), "x"),
		file(strings.Repeat(strings.Repeat("d", 120)+"/", 3)+"f", "x"), file("späce and\nnewline", "x"), file("\xff\xfe", "x"), file("back\\slash", "x"), file("whiteout.wh.in", "x"),
		dir(".wh.dir/below"),
	}}},
	{name: "sizes", layers: [][]entry{{
		file("empty", ""), file("one", "1"), file("block", strings.Repeat("b", 4096)), file("zeros", strings.Repeat("\x00", 100_000)),
		file("more", strings.Repeat("0123456789abcdef", 20_000)), file("holes", strings.Repeat("\x00", 8192)+"x"+strings.Repeat("\x00", 8192)),
	}}},
	{name: "nothing", layers: [][]entry{{}, {}}},
	{name: "lost and found", alone: true, layers: [][]entry{{dir("lost+found").mode(0o751), file("lost+found/x", "x")}}},
}

// importLayers makes a disk of layers and returns where it is.
func importLayers(t testing.TB, s *Store, layers ...[]byte) string {
	t.Helper()
	img, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "test", layers: layers})), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return img[0].Disk
}

func (c stacked) tars() [][]byte {
	var tars [][]byte
	for _, l := range c.layers {
		tars = append(tars, layerTar(l...))
	}
	return tars
}

func TestGolden(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	for _, c := range stacks {
		t.Run(c.name, func(t *testing.T) {
			golden(t, c.name, readDisk(t, importLayers(t, s, c.tars()...)))
		})
	}
}

func golden(t *testing.T, name string, v view) {
	t.Helper()
	got := strings.Join(v.lines(), "\n") + "\n"
	path := filepath.Join("testdata", "golden", strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "")+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant (%s)\n%s", got, path, want)
	}
}

// Sparse files, in each way in which GNU tar writes them.
func TestSparse(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	want := make([]byte, 3_000_001)
	copy(want, "begin")
	copy(want[1_500_000:], "middle")
	copy(want[2_999_998:], "end")
	for _, name := range []string{"gnu", "pax-0.0", "pax-0.1", "pax-1.0"} {
		raw, err := os.ReadFile(filepath.Join("testdata", "sparse-"+name+".tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Import(t.Context(), bytes.NewReader(raw), ImportOptions{}) // of an archive itself, its holes would be written
		refused(t, err, "invalid_image", `member "sparse" is a sparse file`)
		in, err := decompress(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(in); err != nil {
			t.Fatal(err)
		}
		img, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "sparse", layers: [][]byte{plain.Bytes()}, pack: gzipped})), ImportOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := readDisk(t, img[0].Disk)
		if !bytes.Equal(v["sparse"].data, want) || string(v["z"].data) != "after" {
			t.Errorf("%s: %d bytes, and %q after it", name, len(v["sparse"].data), v["z"].data)
		}
		if img[0].Size > 300_000 {
			t.Errorf("%s: the disk takes %d bytes", name, img[0].Size)
		}
	}
}
