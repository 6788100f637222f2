//! What is made of the commands' help: completion scripts and the manual.

use std::process::Command;

use wharf_tests::process::run;
use wharf_tests::wharf::{Wharf, text};

#[test]
fn bash_completes_commands_and_options() {
    let wharf = Wharf::new();
    let script = wharf.scratch().join("wharf.bash");
    fs_err::write(&script, wharf.run(&["completions", "bash"]).output()).expect("it can be written");
    let complete = |words: &[&str]| {
        let (last, count) = (words.last().expect("some words"), words.len() - 1);
        let program = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={count}; _wharf wharf {last} {}; echo ${{COMPREPLY[@]}}",
            text(&script),
            words.join(" "),
            words[count - 1],
        );
        run(Command::new("bash").args(["-c", &program])).output()
    };
    assert_eq!(complete(&["wharf", "run"]), "runtimes");
    assert_eq!(complete(&["wharf", "build", "--zs"]), "--zstd");
    for shell in ["zsh", "fish"] {
        assert!(wharf.run(&["completions", shell]).output().contains("runtimes"), "{shell}");
    }
    let refused = wharf.run(&["completions", "csh"]).exited(2);
    assert!(refused.stderr.contains("zsh"), "{}", refused.report());
}

#[test]
fn every_command_has_a_page_that_the_manual_can_show() {
    let wharf = Wharf::new();
    let pages = wharf.scratch().join("man");
    wharf.run(&["man", "--output", text(&pages)]).succeeded();
    for (page, command) in [("wharf.1", None), ("wharf-build.1", Some("build"))] {
        let page = pages.join(page);
        let shown = run(Command::new("man").args(["--warnings", "-l", text(&page)]));
        assert!(shown.stderr.is_empty() && shown.stdout.contains("SYNOPSIS"), "{}", shown.report());
        let arguments: Vec<&str> = ["man"].into_iter().chain(command).collect();
        let printed = wharf.run(&arguments).output();
        assert!(printed.contains(".SH SYNOPSIS"), "{printed}");
    }
    let refused = wharf.run(&["man", "nothing"]).refusal();
    assert!(refused.contains("no command \"nothing\""), "{refused}");
}
