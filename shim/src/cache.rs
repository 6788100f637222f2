//! `containerd-shim-wasm-v1 cache`: the node's cache of precompiled
//! components, for its administrator. It uses containerd's socket and the
//! cache's folder; no shim needs to run.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;

mod list;
mod prune;
mod warm;

/// The first word of its command line.
pub(crate) const ACTION: &str = "cache";

const USAGE: &str = "\
usage: containerd-shim-wasm-v1 cache list [--json]
       containerd-shim-wasm-v1 cache prune [--all] [--older-than DURATION] [--max-bytes SIZE]
       containerd-shim-wasm-v1 cache warm IMAGE [--namespace NAME] [--address SOCKET]

The node's cache of precompiled components, in WHARF_CACHE_DIR, or else in
/var/cache/wharf/aot.

  list   print the entries, the longest unused first
  prune  remove entries of other engines, what was left by processes that were
         killed, and the longest unused until the rest has WHARF_CACHE_SIZE
           --all                  remove everything
           --older-than DURATION  remove what was not used for so long, as \"7d\"
           --max-bytes SIZE       remove until no more is left, as \"1GiB\"
  warm   compile the workers of an image that containerd has pulled
           --namespace NAME       containerd's namespace: CONTAINERD_NAMESPACE, or
                                  else \"default\"; Kubernetes' is \"k8s.io\"
           --address SOCKET       containerd's socket: CONTAINERD_ADDRESS, or else
                                  /run/containerd/containerd.sock
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    List { json: bool },
    Prune(prune::Options),
    Warm(warm::Options),
    Help,
}

/// Does what the words after [`ACTION`] say.
///
/// # Errors
/// They say nothing, or it can't be done.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<()> {
    match parse(words)? {
        Command::List { json } => list::run(json),
        Command::Prune(options) => prune::run(&options),
        Command::Warm(options) => warm::run(&options),
        Command::Help => print(USAGE),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Command> {
    let mut command = match words.next().as_deref() {
        Some("list" | "ls") => Command::List { json: false },
        Some("prune") => Command::Prune(prune::Options::default()),
        Some("warm") => Command::Warm(warm::Options::from_env()),
        Some("help" | "-h" | "--help") => return Ok(Command::Help),
        Some(other) => bail!("unknown command \"cache {other}\": expected list, prune or warm"),
        None => bail!("expected a command: list, prune or warm"),
    };
    while let Some(word) = words.next() {
        let (name, mut given) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            let value = given.take().or_else(|| words.next());
            value.with_context(|| format!("flag {name} has no value"))
        };
        match (&mut command, name) {
            (_, "-h" | "--help") => return Ok(Command::Help),
            (Command::List { json }, "--json") => *json = true,
            (Command::Prune(options), "--all") => options.all = true,
            (Command::Prune(options), "--older-than") => {
                options.older_than = Some(duration(&value()?)?);
            }
            (Command::Prune(options), "--max-bytes") => options.max_bytes = Some(bytes(&value()?)?),
            (Command::Warm(options), "--namespace") => options.namespace = value()?,
            (Command::Warm(options), "--address") => options.address = value()?,
            (Command::Warm(options), image) if !image.starts_with('-') && options.image.is_empty() => {
                options.image = word;
                continue;
            }
            _ => bail!("unexpected {word:?}: see `cache --help`"),
        }
        if given.is_some() {
            bail!("flag {name} takes no value");
        }
    }
    match &command {
        Command::Warm(options) if options.image.is_empty() => bail!("expected an image to warm"),
        _ => Ok(command),
    }
}

fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text)
        .with_context(|| format!("{text:?} is no duration: expected one as \"7d\""))
}

fn bytes(text: &str) -> Result<u64> {
    let size: Result<ByteSize, String> = text.parse();
    size.map(|size| size.0).map_err(anyhow::Error::msg).with_context(|| format!("{text:?} is no size"))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// To people, beside the data on standard output.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_commands_are_read() {
        assert_eq!(parse_line("list --json").unwrap(), Command::List { json: true });
        let Command::Prune(options) = parse_line("prune --older-than 7d --max-bytes=1KiB").unwrap() else {
            panic!("expected prune");
        };
        assert_eq!(options.older_than, Some(Duration::from_secs(7 * 86400)));
        assert_eq!((options.max_bytes, options.all), (Some(1024), false));
        let line = "warm --namespace k8s.io registry:5000/a:1 --address=/run/x=y.sock";
        let Command::Warm(options) = parse_line(line).unwrap() else { panic!("expected warm") };
        assert_eq!(options.image, "registry:5000/a:1");
        assert_eq!((options.namespace.as_str(), options.address.as_str()), ("k8s.io", "/run/x=y.sock"));
        assert_eq!(parse_line("warm --help").unwrap(), Command::Help);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let error = |line| parse_line(line).unwrap_err().to_string();
        assert_eq!(error(""), "expected a command: list, prune or warm");
        assert_eq!(error("lst"), "unknown command \"cache lst\": expected list, prune or warm");
        assert_eq!(error("warm"), "expected an image to warm");
        assert_eq!(error("warm a b"), "unexpected \"b\": see `cache --help`");
        assert_eq!(error("list --all"), "unexpected \"--all\": see `cache --help`");
        assert_eq!(error("list --json=1"), "flag --json takes no value");
        assert_eq!(error("prune --older-than"), "flag --older-than has no value");
        assert_eq!(error("prune --older-than 7"), "\"7\" is no duration: expected one as \"7d\"");
        assert_eq!(error("prune --max-bytes x"), "\"x\" is no size");
    }
}
