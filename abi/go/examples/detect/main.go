// detect MODEL PICTURE: boxes (left, top, right, bottom in pixels) and how sure the model is of each.
package main

import (
	"context"
	"fmt"
	"os"
	. "vivarium"
)

func main() {
	model := Must(Must(Open(Options{})).Load(os.Args[1], nil))
	picture := []Input{Image("image", Must(os.ReadFile(os.Args[2])))}
	found := map[string][]float32{}
	for event := range Must(model.Submit(context.Background(), "detect", picture, nil)).Events() {
		if event.Tensor != nil && event.Tensor.DType == F32 {
			found[event.Name] = Must(Data[float32](event.Tensor))
		}
	}
	for i, score := range found["scores.0"] {
		if score > 0.5 {
			fmt.Printf("%.3f %.1f\n", score, found["boxes.0"][4*i:4*i+4])
		}
	}
}
