//! `wharf login`: credentials for a registry, checked and kept where Docker does.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wharf_images::Kept;

use crate::arguments::Global;
use crate::output;
use crate::transfer::{Way, runtime};

/// The longest password that is read from stdin, in bytes: tokens are long.
const LONGEST: u64 = 64 << 10;

/// Log in to a registry: for wharf, and for Docker, whose configuration keeps it.
#[derive(Debug, Args)]
#[command(after_help = "Example: echo \"$TOKEN\" | wharf login ghcr.io --username me --password-stdin")]
pub(crate) struct Login {
    /// The registry: HOST[:PORT], or docker.io.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
    /// The user.
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password or access token from stdin.
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    way: Way,
}

pub(crate) fn run(args: &Login, global: &Global) -> Result<ExitCode> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = if args.password_stdin {
        from_stdin()?
    } else if io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ").context("cannot read the password")?
    } else {
        bail!("cannot ask for the password: stdin is no terminal; pass it by --password-stdin");
    };
    if user.is_empty() || password.is_empty() {
        bail!("cannot log in: expected a user and a password, found an empty one");
    }
    let kept = runtime()?.block_on(args.way.client().log_in(&args.registry, &user, &password))?;
    if !global.quiet {
        match kept {
            Kept::Helper(helper) => output::remark(format!("kept by {helper}")),
            Kept::File(path) => output::remark(format!(
                "kept in {} without encryption; a credential helper (credsStore) would be safer",
                path.display()
            )),
        }
    }
    output::line(format!("logged in to {}", args.registry))?;
    Ok(ExitCode::SUCCESS)
}

fn ask(prompt: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        bail!("cannot ask for the user: stdin is no terminal; pass it by --username");
    }
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush()).context("cannot ask for the user")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read the user")?;
    Ok(line.trim().to_owned())
}

/// All of stdin but the end of its line, as `docker login` reads it.
fn from_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin().take(LONGEST).read_to_string(&mut text).context("cannot read the password from stdin")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
