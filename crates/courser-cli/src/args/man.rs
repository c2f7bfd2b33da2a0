//! `courser man`.

use std::path::PathBuf;

use clap::Args;

/// The folder.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser man ~/.local/share/man/man1
          A page for each command: man courser-perf-client")]
pub struct ManArgs {
    /// Where the pages go; the folder is made when it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
