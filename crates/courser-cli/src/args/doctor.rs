//! `courser doctor`.

use clap::Args;

/// It has no flags of its own.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser doctor
  courser doctor --json | jq '.checks[] | select(.state != \"good\")'

The exit code is 7 when something is missing that the other commands need.")]
pub struct DoctorArgs {}
