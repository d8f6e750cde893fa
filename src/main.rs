//! The `pillion` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    pillion::cli::main()
}
