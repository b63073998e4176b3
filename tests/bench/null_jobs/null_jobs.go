// Microseconds of a null job through Go: null_jobs MODEL N.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"vivarium"
)

func main() {
	model := vivarium.Must(vivarium.Must(vivarium.Open(vivarium.Options{})).Load(os.Args[1], nil))
	n := vivarium.Must(strconv.Atoi(os.Args[2]))
	times := make([]float64, n)
	for i := range times {
		begun := time.Now()
		x := vivarium.Of("x", []float32{1}, 1)
		job := vivarium.Must(model.Submit(context.Background(), "forward", []vivarium.Input{x}, nil))
		for err := error(nil); err == nil; _, err = job.Next() {
		}
		job.Close()
		times[i] = float64(time.Since(begun).Nanoseconds()) / 1e3
	}
	sort.Float64s(times)
	fmt.Printf("Go      null job: least %7.2f  p50 %7.2f us\n", times[0], times[n/2])
}
