//! The commands of `wharf`, one file each.

pub(crate) mod build;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod kube;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod man;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod routes;
pub(crate) mod runtimes;
pub(crate) mod save;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::{Arguments, Command};

/// Runs the command that was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let global = arguments.global;
    match arguments.command {
        Command::Serve(args) => serve::run(&args, &global),
        Command::New(args) => new::run(&args),
        Command::Dev(args) => dev::run(&args, &global),
        Command::Routes(args) => routes::run(&args, &global),
        Command::Build(args) => build::run(&args, &global),
        Command::Images(args) => images::run(&args),
        Command::Inspect(args) => inspect::run(&args, &global),
        Command::Rm(args) => rm::run(&args),
        Command::Prune(args) => prune::run(&args, &global),
        Command::Push(args) => push::run(&args, &global),
        Command::Pull(args) => pull::run(&args, &global),
        Command::Login(args) => login::run(&args, &global),
        Command::Logout(args) => logout::run(&args),
        Command::Sign(args) => sign::run(&args, &global),
        Command::Verify(args) => verify::run(&args, &global),
        Command::Save(args) => save::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Kube(args) => kube::run(&args, &global),
        Command::Node(args) => node::run(&args),
        Command::Runtimes(args) => runtimes::run(&args, &global),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Compile(args) => compile::run(&args),
    }
}
