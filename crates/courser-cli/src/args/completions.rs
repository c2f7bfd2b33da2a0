//! `courser completions`.

use clap::Args;

/// The shell.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser completions bash > ~/.local/share/bash-completion/completions/courser
  courser completions zsh > ~/.zfunc/_courser
  courser completions fish > ~/.config/fish/completions/courser.fish")]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
