// generate MODEL TEXT: what the model goes on to say; in the daemon where one runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	. "vivarium"
)

func main() {
	runtime, err := Connect("")
	if errors.Is(err, NotNow) {
		runtime, err = Open(Options{})
	}
	model := Must(Must(runtime, err).Load(os.Args[1], nil))
	settings := &Settings{Params: map[string]any{"max_new_tokens": 64}}
	job := Must(model.Submit(context.Background(), "generate", []Input{Text("text", os.Args[2])}, settings))
	for event := range job.Events() {
		fmt.Print(event.Text)
	}
	fmt.Println()
}
