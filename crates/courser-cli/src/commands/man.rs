//! `courser man`: a page for the command and one for each of its commands.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::args::man::ManArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::text;

/// Writes the pages.
///
/// # Errors
/// The folder cannot be made or written.
pub fn run(args: &ManArgs, ui: &Ui) -> Outcome {
    let n = write(&args.dir)?;
    ui.note(format_args!("{} in {}", text::count(n as u64, "page"), args.dir.display()));
    Ok(())
}

/// Returns how many pages there are.
fn write(dir: &Path) -> Outcome<usize> {
    std::fs::create_dir_all(dir).map_err(|e| Failure::writing(dir, &e))?;
    let mut root = Cli::command();
    root.build();
    let mut written = 0;
    page(&root, "courser", dir, &mut written)?;
    Ok(written)
}

/// The page of a command, and those of the commands below it.
fn page(command: &clap::Command, name: &str, dir: &Path, written: &mut usize) -> Outcome {
    let mut text = Vec::new();
    let file = dir.join(format!("{name}.1"));
    // Commands carry their full name (`courser-perf-client`) since the tree was built.
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(|e| Failure::writing(&file, &e))?;
    std::fs::write(&file, text).map_err(|e| Failure::writing(&file, &e))?;
    *written += 1;
    for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
        page(below, &format!("{name}-{}", below.get_name()), dir, written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("man1");
        assert_eq!(write(&sub).unwrap(), 25);
        for page in ["courser", "courser-demo", "courser-echo-client", "courser-perf-server", "courser-ping"] {
            let text = std::fs::read_to_string(sub.join(format!("{page}.1"))).unwrap();
            assert!(text.contains(".TH") && text.contains(".SH NAME"), "{page}");
        }
        let demo = std::fs::read_to_string(sub.join("courser-demo.1")).unwrap();
        assert!(demo.contains("flip") && demo.contains("Examples"), "{demo}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let e = write(&file.join("sub")).unwrap_err();
        assert_eq!(e.code(), 7);
    }
}
