//! `peer-courser`: Courser behind the command line and the JSON of the comparison's programs.
//!
//! Like them it takes any certificate chain, offers X25519 only, and runs one thread of work.

pub mod opts;

use opts::{End, Opts};

/// The program: arguments in, exit code out.
pub fn main_with(args: impl IntoIterator<Item = String>) -> u8 {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    match opts::parse(&name, args) {
        Ok(opts) => run(&opts),
        Err(usage) => {
            eprintln!("{usage}");
            2
        }
    }
}

fn run(opts: &Opts) -> u8 {
    if let Some(warning) = opts.warning {
        eprintln!("warning: {warning}");
    }
    let why = "this build has no engine yet";
    match opts.end {
        End::Client(_) => println!("{}", opts::error_line(opts.mode(), why)),
        End::Server { .. } => eprintln!("error: {why}"),
    }
    1
}
