//! `wharf compile`: a component's machine code. The shim calls it, in a
//! process of its own, so that neither it nor the container compiles.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use wharf_host::{Architecture, Compiler, CompilerTarget, write_code};

use crate::output;

/// Compile a WebAssembly component to machine code, as the shim does.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf compile worker.wasm -o worker.cwasm")]
pub(crate) struct Compile {
    /// The component.
    #[arg(required_unless_present = "engine_id")]
    component: Option<PathBuf>,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", required_unless_present = "engine_id")]
    output: Option<PathBuf>,
    /// For any machine of this architecture, not just for this one.
    #[arg(long, value_name = "ARCH")]
    target: Option<Architecture>,
    /// Print what names the compiler's configuration instead.
    #[arg(long)]
    engine_id: bool,
}

pub(crate) fn run(args: &Compile) -> Result<ExitCode> {
    let compiler = Compiler::new(args.target.map_or(CompilerTarget::Native, CompilerTarget::Portable))?;
    if args.engine_id {
        output::line(compiler.id())?;
    }
    if let (Some(component), Some(output)) = (&args.component, &args.output) {
        let code = compiler.compile(component)?;
        write_code(output, &code).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
