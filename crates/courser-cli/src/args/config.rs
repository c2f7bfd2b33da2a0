//! `courser config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with a configuration.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser config default > courser.toml
          Begin with a file that says what it can say
  courser config check courser.toml && systemctl reload courser")]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: ConfigWhat,
}

/// What to do with a configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigWhat {
    /// Look for mistakes in a file, and for folders and certificates that are not there.
    Check(CheckArgs),
    /// Print a file with every key, its default, and what it means.
    Default,
}

/// Flags of the check.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn a_check_needs_a_file() {
        assert!(Cli::try_parse_from(["courser", "config", "check"]).is_err());
        let cli = Cli::try_parse_from(["courser", "config", "check", "f"]).unwrap();
        let Command::Config(ConfigArgs { what: ConfigWhat::Check(check) }) = cli.command else { panic!() };
        assert_eq!(check.file, PathBuf::from("f"));
        assert!(Cli::try_parse_from(["courser", "config", "default"]).is_ok());
    }
}
