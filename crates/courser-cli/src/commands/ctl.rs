//! `courser ctl`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use courser_session::control::{Reply, Request, connect, receive, send};

use crate::args::stack::CtlArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &CtlArgs, json: bool, ui: &Ui) -> Outcome {
    let path = args.place.path();
    let socket = connect(&path).map_err(|e| Failure::Local {
        what: format!("the service at {}", path.display()),
        why: format!("{e}; start it with `courser stack`, or name its socket with --socket"),
    })?;
    if !args.words.is_empty() {
        return command(&socket, &args.words, json);
    }
    let input = std::io::stdin();
    let prompt = || {
        if input.is_terminal() && !json {
            eprint!("courser> ");
        }
    };
    prompt();
    for line in input.lock().lines() {
        let line = line.map_err(|e| Failure::local("reading commands", &e))?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words.first().map(String::as_str) {
            None => {}
            Some("quit" | "exit") => break,
            Some(_) => {
                // The next line may be a better one.
                if let Err(failure) = command(&socket, &words, json) {
                    if !input.is_terminal() {
                        return Err(failure);
                    }
                    ui.warn(&failure);
                }
            }
        }
        prompt();
    }
    Ok(())
}

/// Gives one command and prints what comes back.
fn command(socket: &OwnedFd, words: &[String], json: bool) -> Outcome {
    let gone =
        |e: std::io::Error| Failure::Local { what: "the service".into(), why: format!("{e}; it may have ended") };
    let mut packet = Vec::new();
    Request::Command { words: words.to_vec(), json }.encode(&mut packet);
    send(socket.as_fd(), &packet, &[]).map_err(gone)?;
    let mut out = std::io::stdout().lock();
    loop {
        let count = receive(socket.as_fd(), &mut packet, &mut Vec::new()).map_err(gone)?;
        if count == 0 {
            return Err(gone(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match Reply::decode(&packet) {
            Ok(Reply::Output { text, more }) => {
                out.write_all(text.as_bytes()).map_err(|e| Failure::local("writing the answer", &e))?;
                if !more {
                    return Ok(());
                }
            }
            Ok(Reply::Failed { text, .. }) => return Err(Failure::Usage(text)),
            _ => return Err(Failure::Local { what: "the service".into(), why: "its answer makes no sense".into() }),
        }
    }
}
