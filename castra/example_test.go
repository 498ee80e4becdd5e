package castra_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/magefile/mage/mg"
	"github.com/magefile/mage/sh"

	"castra.example/castra/castra"
)

func ExampleOpen() {
	ctx := context.Background()
	p, err := castra.Open(castra.Options{Dir: "."})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Up(ctx, castra.UpOptions{VMs: []string{"web"}}); err != nil {
		log.Fatal(err)
	}
	status, err := p.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, vm := range status.VMs {
		fmt.Println(vm.Name, vm.State, vm.Forwards)
	}
	if err := p.Exec(ctx, "web", castra.Command{Line: "uname -a", Stdout: os.Stdout}); err != nil {
		log.Print(err)
	}
	if err := p.Down(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleWith() {
	err := castra.With(context.Background(), castra.Options{}, func(ctx context.Context, s *castra.Session) error {
		kernel, err := s.Output(ctx, "web", "uname -r")
		fmt.Println(kernel)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleSession_Address() {
	err := castra.With(context.Background(), castra.Options{}, func(ctx context.Context, s *castra.Session) error {
		addr, err := s.Address("web", 80)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		fmt.Println(resp.Status)
		return resp.Body.Close()
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A target of a magefile that needs VMs. They stay up after it.
func ExampleRunning() {
	integration := func(ctx context.Context) error {
		mg.CtxDeps(ctx, castra.Running("web", "db-0"))
		return sh.RunV("go", "test", "./e2e/...")
	}
	_ = integration // func Integration(ctx context.Context) error
}

func ExampleUpWith() {
	deploy := func(ctx context.Context) error {
		mg.CtxDeps(ctx, castra.UpWith(castra.UpOptions{VMs: []string{"web"}, Bootstrap: "web=always"}))
		return sh.RunV("./deploy.sh")
	}
	_ = deploy // func Deploy(ctx context.Context) error
}

func ExampleProject_Within() {
	p, err := castra.Open(castra.Environment())
	if err != nil {
		log.Fatal(err)
	}
	err = p.Within(context.Background(), castra.UpOptions{}, castra.HostCommand{
		Line: `curl -fsS "http://$CASTRA_WEB_ADDR_80/"`, Env: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleProject_Copy() {
	ctx := context.Background()
	p, err := castra.Open(castra.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Copy(ctx, "site", "web:/srv/site"); err != nil {
		log.Fatal(err)
	}
	if err := p.Copy(ctx, "web:/var/log/nginx/error.log", "."); err != nil {
		log.Fatal(err)
	}
}

// What runs on this computer, of all projects.
func ExampleOpenWorkspaces() {
	all, err := castra.OpenWorkspaces(castra.Options{}, castra.Selection{All: true}, nil)
	if err != nil {
		log.Fatal(err)
	}
	status, err := all.Status(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, project := range status.Workspaces {
		for _, vm := range project.VMs {
			fmt.Println(project.Workspace, vm.Name, vm.State)
		}
	}
}
