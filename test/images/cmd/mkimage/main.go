// Command mkimage makes images of package images and prints the paths of their
// archives, one a line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/confinehq/confine/test/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	all := flag.Bool("all", false, "make every image")
	list := flag.Bool("list", false, "print the names of all recipes")
	cache := flag.String("cache", images.CacheDir(), "folder that archives are kept in")
	flag.Parse()
	names := flag.Args()
	if *all || *list {
		var err error
		if names, err = images.Names(); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return errors.New("name a recipe, or use --all; --list prints the names")
	}
	for _, name := range names {
		if *list {
			fmt.Println(name)
			continue
		}
		image, err := images.Build(ctx, name, *cache, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(image.Path)
	}
	return nil
}
