module vivarium

go 1.19
