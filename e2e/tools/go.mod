// Go looks for a go.mod to know the module root; each tool is pinned by its own .mod beside this one.
module tools

go 1.26.0
