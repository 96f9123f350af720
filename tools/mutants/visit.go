package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"strings"
)

// A mutant is a file with one change.
type mutant struct {
	file, line, from, to string // line: its text
	n                    int    // of those that are otherwise told in the same words
	source               []byte // the whole file
	in                   *function
	copy                 string // of the function, with the change and without a name: see assemble
}

// A function holds mutants.
type function struct {
	name       string
	start, end int    // in its file
	named      int    // where its name ends
	body       int    // where its body begins
	call       string // "s.%s(p, now)"
	results    bool
	recovers   bool // itself, rather than in a function that it defers
}

// String tells it in words that stay the same while the line does.
func (m mutant) String() string {
	s := fmt.Sprintf("%s: `%s`: `%s` becomes `%s`", filepath.Base(m.file), m.line, m.from, m.to)
	if m.n > 1 {
		s += fmt.Sprintf(" (%d)", m.n)
	}
	return s
}

// A visitor collects the mutants of a file.
type visitor struct {
	name  string
	src   []byte
	file  *token.File
	seen  map[string]int
	in    *function
	found []mutant
}

func (v *visitor) text(n ast.Node) string {
	return string(v.src[v.file.Offset(n.Pos()):v.file.Offset(n.End())])
}

// change replaces a node by a text.
func (v *visitor) change(n ast.Node, to string) {
	v.replace(v.file.Offset(n.Pos()), v.file.Offset(n.End()), to)
}

func (v *visitor) replace(from, end int, to string) {
	start := bytes.LastIndexByte(v.src[:from], '\n') + 1
	stop := start + bytes.IndexByte(v.src[start:], '\n')
	line := strings.TrimSpace(string(v.src[start:stop]))
	if i := strings.Index(line, " // "); i >= 0 {
		line = line[:i]
	}
	m := mutant{file: v.name, line: line, from: brief(string(v.src[from:end])), to: brief(to)}
	m.source = bytes.Join([][]byte{v.src[:from], []byte(to), v.src[end:]}, nil)
	m.in = v.in
	m.copy = string(v.src[v.in.named:from]) + to + string(v.src[end:v.in.end])
	v.seen[m.String()]++
	m.n = v.seen[m.String()]
	v.found = append(v.found, m)
}

// brief is the first line of a text.
func brief(s string) string {
	if first, _, more := strings.Cut(s, "\n"); more {
		return first + " …"
	}
	return s
}

func (v *visitor) decl(d ast.Decl) {
	f, ok := d.(*ast.FuncDecl)
	if !ok || f.Body == nil {
		return
	}
	var results []string
	if f.Type.Results != nil {
		for _, r := range f.Type.Results.List {
			for range max(1, len(r.Names)) {
				results = append(results, v.text(r.Type))
			}
		}
	}
	v.in = &function{
		name: f.Name.Name, start: v.file.Offset(f.Pos()), end: v.file.Offset(f.End()), named: v.file.Offset(f.Name.End()),
		body: v.file.Offset(f.Body.Lbrace) + 1, call: v.callOf(f), results: len(results) > 0,
		recovers: recovers(f.Body),
	}
	ast.Inspect(f.Body, func(n ast.Node) bool { return v.node(n, results) })
}

// recovers reports whether a function calls recover itself.
func recovers(body *ast.BlockStmt) (yes bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			id, ok := call.Fun.(*ast.Ident)
			yes = yes || ok && id.Name == "recover"
		}
		_, inner := n.(*ast.FuncLit)
		return !inner
	})
	return yes
}

// callOf returns a call of a function from within it, with its own arguments, and %s for its name.
func (v *visitor) callOf(f *ast.FuncDecl) string {
	call := "%s("
	if f.Recv != nil {
		call = f.Recv.List[0].Names[0].Name + "." + call
	}
	for _, p := range f.Type.Params.List {
		for _, name := range p.Names {
			call += name.Name + ", "
		}
	}
	return strings.TrimSuffix(call, ", ") + ")"
}

var opposite = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
	token.LAND: token.LOR, token.LOR: token.LAND,
	token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
}

var boundary = map[token.Token]token.Token{token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR}

// node collects the mutants of one node, and reports whether what it holds is to be visited.
func (v *visitor) node(n ast.Node, results []string) bool {
	switch n := n.(type) {
	case *ast.FuncLit:
		ast.Inspect(n.Body, func(in ast.Node) bool { return v.node(in, nil) })
		return false
	case *ast.BinaryExpr:
		for _, ops := range []map[token.Token]token.Token{opposite, boundary} {
			if to, ok := ops[n.Op]; ok && !isText(n) {
				at := v.file.Offset(n.OpPos)
				v.replace(at, at+len(n.Op.String()), to.String())
			}
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			v.change(n, "("+v.text(n.X)+")")
		}
	case *ast.CallExpr:
		v.call(n)
	case *ast.IfStmt:
		v.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			v.condition(n.Cond)
		}
	case *ast.CaseClause:
		for _, c := range n.List {
			if !isLiteral(c) {
				v.condition(c)
			}
		}
	case *ast.AssignStmt:
		v.assign(n)
	case *ast.IncDecStmt:
		v.change(n, "_ = "+v.text(n.X))
	case *ast.ExprStmt:
		if text := v.text(n); !strings.Contains(text, ".log.") && !strings.HasPrefix(text, "panic(") {
			v.change(n, "{}")
		}
		if strings.Contains(v.text(n), ".log.") {
			return false
		}
	case *ast.DeferStmt:
		if _, ok := n.Call.Fun.(*ast.FuncLit); !ok && !strings.Contains(v.text(n), "Unlock") {
			v.change(n, "{}")
		}
	case *ast.GoStmt:
		return true
	case *ast.CompositeLit:
		v.literal(n)
	case *ast.ReturnStmt:
		v.returns(n, results)
	}
	return true
}

// isText reports a sum of strings.
func isText(n *ast.BinaryExpr) bool {
	for _, e := range []ast.Expr{n.X, n.Y} {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING && n.Op == token.ADD {
			return true
		}
		if b, ok := e.(*ast.BinaryExpr); ok && isText(b) {
			return true
		}
	}
	return false
}

// isLiteral reports a case of a switch over a value.
func isLiteral(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name != "ok" && e.Name != "healthy" && e.Name != "overdue"
	case *ast.SelectorExpr:
		id, ok := e.X.(*ast.Ident)
		return ok && id.Name == "http"
	}
	return false
}

// condition turns a condition round that is no comparison and no combination of others: those are changed where they stand.
func (v *visitor) condition(e ast.Expr) {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		if e.Op == token.LAND || e.Op == token.LOR {
			v.condition(e.X)
			v.condition(e.Y)
		}
		return
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return
		}
	}
	v.change(e, "!("+v.text(e)+")")
}

// call changes calls that compare times, add to them, or choose one of two values.
func (v *visitor) call(n *ast.CallExpr) {
	switch fun := n.Fun.(type) {
	case *ast.SelectorExpr:
		if len(n.Args) != 1 {
			return
		}
		x, arg := v.text(fun.X), v.text(n.Args[0])
		switch fun.Sel.Name {
		case "Before", "After":
			v.change(n, fmt.Sprintf("(!%s.%s(%s))", arg, fun.Sel.Name, x)) // the boundary
			v.change(n, fmt.Sprintf("(!%s.%s(%s))", x, fun.Sel.Name, arg))
		case "Add":
			v.change(n, x)
			v.change(n, fmt.Sprintf("%s.Add(-(%s))", x, arg))
		}
	case *ast.Ident:
		switch {
		case fun.Name == "min" && len(n.Args) > 1:
			v.change(fun, "max")
		case fun.Name == "max" && len(n.Args) > 1:
			v.change(fun, "min")
		case fun.Name == "later":
			v.change(n, "("+v.text(n.Args[0])+")")
			v.change(n, "("+v.text(n.Args[1])+")")
		}
	}
}

// assign leaves out assignments: all of one value, or one of several.
func (v *visitor) assign(n *ast.AssignStmt) {
	if n.Tok == token.DEFINE {
		return
	}
	if len(n.Lhs) == 1 {
		if v.text(n.Lhs[0]) != "_" {
			v.change(n, "_ = "+v.text(n.Rhs[0]))
		}
		return
	}
	if len(n.Lhs) != len(n.Rhs) {
		return
	}
	for i, l := range n.Lhs {
		v.change(n.Rhs[i], v.text(l))
	}
}

// literal leaves out fields.
func (v *visitor) literal(n *ast.CompositeLit) {
	for i, e := range n.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if _, ok := kv.Key.(*ast.Ident); !ok {
			continue
		}
		end := v.file.Offset(kv.End())
		if i+1 < len(n.Elts) {
			end = v.file.Offset(n.Elts[i+1].Pos())
			if bytes.ContainsRune(v.src[v.file.Offset(kv.End()):end], '\n') {
				end = v.file.Offset(kv.End()) + 1
			}
		} else if v.src[end] == ',' {
			end++
		}
		v.replace(v.file.Offset(kv.Pos()), end, "")
	}
}

var zeros = map[string]string{
	"time.Time": "time.Time{}", "time.Duration": "0", "int": "0", "error": "nil", "<-chan struct{}": "nil", "Status": `""`,
}

// returns changes what is returned, and leaves out a return of nothing.
func (v *visitor) returns(n *ast.ReturnStmt, results []string) {
	if len(n.Results) == 0 {
		v.change(n, "{}")
		return
	}
	if len(n.Results) != len(results) {
		return
	}
	for i, r := range n.Results {
		switch text := v.text(r); results[i] {
		case "bool":
			if text == "true" {
				v.change(r, "false")
			} else if text == "false" {
				v.change(r, "true")
			} else if _, ok := r.(*ast.BinaryExpr); !ok {
				v.change(r, "!("+text+")")
			}
		default:
			if zero, ok := zeros[results[i]]; ok && text != zero {
				v.change(r, zero)
			}
		}
	}
}
