// tokens MODEL TEXT: the text's tokens.
package main

import (
	"fmt"
	"os"
	. "vivarium"
)

func main() {
	model := Must(Must(Open(Options{})).Load(os.Args[1], nil))
	for _, id := range Must(model.Tokenize(os.Args[2], true)) {
		fmt.Printf("%d %q\n", id, Must(model.Detokenize([]int32{id}, false)))
	}
}
