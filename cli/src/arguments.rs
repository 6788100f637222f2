//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Package a static site and its WebAssembly workers once; run the image
/// anywhere containers run.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Example: wharf build . -t registry.example/app:1 && wharf push registry.example/app:1"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Global {
    /// Say more; twice for debugging.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but results and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// The commands, one file each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    New(commands::new::New),
    Serve(Box<commands::serve::Serve>),
    Dev(commands::dev::Dev),
    Routes(commands::routes::Routes),
    Build(commands::build::Build),
    Images(commands::images::Images),
    Inspect(commands::inspect::Inspect),
    Rm(commands::rm::Rm),
    Prune(commands::prune::Prune),
    Push(commands::push::Push),
    Pull(commands::pull::Pull),
    Login(commands::login::Login),
    Logout(commands::logout::Logout),
    Sign(commands::sign::Sign),
    Verify(commands::verify::Verify),
    Save(commands::save::Save),
    Load(commands::load::Load),
    Kube(Box<commands::kube::Kube>),
    Node(Box<commands::node::NodeCommand>),
    Runtimes(commands::runtimes::Runtimes),
    Completions(commands::completions::Completions),
    Man(commands::man::Manual),
    Compile(commands::compile::Compile),
}
