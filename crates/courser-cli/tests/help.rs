//! The help of each command, as it was when somebody last looked at it. After a deliberate change run
//! `COURSER_UPDATE_HELP=1 cargo test -p courser-cli --test help` and read the difference.

use std::path::Path;

use clap::CommandFactory;
use courser_cli::args::Cli;

/// The short help, without the flags that many commands share: those are shown once, with `perf client`.
fn shown(path: &[&str]) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut found = &mut command;
    for name in path {
        found = found.find_subcommand_mut(name).expect("a command of that name");
    }
    let help = found.render_help().to_string();
    let mut out = String::new();
    let mut skip = false;
    for line in help.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            skip = matches!(heading, "Transport" | "Output") && path != ["perf", "client"];
        } else if !line.starts_with(' ') && !line.is_empty() {
            skip = false;
        }
        if !skip {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

fn check(name: &str, path: &[&str]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let file = dir.join(format!("{name}.txt"));
    let now = shown(path);
    if std::env::var_os("COURSER_UPDATE_HELP").is_some() {
        std::fs::create_dir_all(&dir).expect("the folder of the snapshots");
        std::fs::write(&file, &now).expect("a snapshot");
    }
    let then = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(now, then, "the help of {name} changed");
}

#[test]
fn help_is_as_it_was() {
    check("courser", &[]);
    check("serve", &["serve"]);
    check("proxy", &["proxy"]);
    check("config", &["config"]);
    check("vcl-test-server", &["vcl-test", "server"]);
    check("vcl-test-client", &["vcl-test", "client"]);
    check("demo", &["demo"]);
    check("echo-server", &["echo", "server"]);
    check("echo-client", &["echo", "client"]);
    check("perf-server", &["perf", "server"]);
    check("perf-client", &["perf", "client"]);
    check("interop", &["interop"]);
    check("get", &["get"]);
    check("ping", &["ping"]);
    check("qlog", &["qlog"]);
    check("doctor", &["doctor"]);
    check("completions", &["completions"]);
    check("man", &["man"]);
}

#[test]
fn every_command_has_examples() {
    for path in [
        &[][..],
        &["serve"],
        &["proxy"],
        &["config"],
        &["vcl-test", "server"],
        &["vcl-test", "client"],
        &["demo"],
        &["echo", "server"],
        &["echo", "client"],
        &["perf", "server"],
        &["perf", "client"],
        &["interop"],
        &["get"],
        &["ping"],
        &["qlog"],
        &["doctor"],
        &["completions"],
        &["man"],
    ] {
        let mut command = Cli::command();
        command.build();
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).expect("a command of that name");
        }
        let help = found.render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("courser "), "{path:?}");
    }
}
