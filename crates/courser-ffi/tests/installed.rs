//! What `install.sh` puts down, used as programs of others use it: found by pkg-config, compiled as C and as C++, with the shared
//! library and without it, and run; with sanitizers and under valgrind where there are such. With the feature `engine` the same of the library that
//! has the engine inside, whose programs need no service.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service};

struct Installed {
    folder: tempfile::TempDir,
    service: Service,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {tool} here");
    }
    there
}

fn out(output: Output) -> String {
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{said}{complained}");
    said
}

/// The newest library with that ending; the build system may have put a hash into its name.
fn built(ending: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = std::fs::read_dir(test.parent().expect("a test is in a folder")).expect("the folder is there");
    let found = folder.flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("libcourserstack") && name.ends_with(ending)
    });
    let newest = found.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    newest.expect("the library was built").path()
}

impl Installed {
    /// `None` where a tool is missing.
    fn new() -> Option<Self> {
        if !["cc", "pkg-config", "nm", "readelf"].into_iter().all(has) {
            return None;
        }
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let libraries = folder.path().join("built");
        std::fs::create_dir(&libraries).expect("it is made");
        for ending in [".so", ".a"] {
            std::fs::copy(built(ending), libraries.join(format!("libcourserstack{ending}"))).expect("it is copied");
        }
        let mut install = Command::new("sh");
        install.arg(here().join("install.sh")).arg("--from").arg(&libraries).arg("--prefix");
        out(install.arg(folder.path().join("usr")).env_remove("DESTDIR").output().expect("the script runs"));
        let service = Service::start(Host::new(Config::default()), Options::new(folder.path().join("socket")));
        Some(Self { folder, service: service.expect("a service starts") })
    }

    fn lib(&self) -> PathBuf {
        self.folder.path().join("usr/lib")
    }

    fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("courser").env("PKG_CONFIG_PATH", self.lib().join("pkgconfig"));
        out(command.output().expect("pkg-config runs")).split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program with what pkg-config says.
    fn compile(&self, (compiler, name): (&str, &str), options: &[&str], libraries: &[String]) -> PathBuf {
        let program = self.folder.path().join(name);
        let mut compile = Command::new(compiler);
        compile.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-D_POSIX_C_SOURCE=200809L"]).args(options);
        compile.args(self.pkg_config(&["--cflags"])).arg(here().join(format!("c/{name}.c"))).args(["-x", "none", "-o"]);
        out(compile.arg(&program).args(libraries).arg("-lpthread").output().expect("the compiler runs"));
        program
    }

    /// What a program says, which a command may run.
    fn run(&self, command: &[&str], program: &Path) -> String {
        let mut words = command.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut run = Command::new(words.next().expect("there is the program"));
        run.args(words).env("COURSER_SOCKET", self.service.path()).env_remove("COURSER_CONFIG");
        out(run.env("LD_LIBRARY_PATH", self.lib()).output().expect("the program runs"))
    }
}

#[test]
fn the_shared_library_runs_programs_and_is_found_by_its_versions_name() {
    let Some(installed) = Installed::new() else { return };
    let (shared, c99) = (installed.pkg_config(&["--libs"]), ["-std=c99"]);
    let calls = installed.compile(("cc", "calls"), &c99, &shared);
    let needed = out(Command::new("readelf").arg("-d").arg(&calls).output().expect("it runs"));
    let version = env!("CARGO_PKG_VERSION").rsplit_once('.').expect("a version has three parts").0;
    assert!(needed.contains(&format!("Shared library: [libcourserstack.so.{version}]")), "{needed}");
    assert_eq!(installed.run(&[], &calls), "all calls answered\n");
    let hostile = installed.compile(("cc", "hostile"), &c99, &shared);
    assert_eq!(installed.run(&[], &hostile), "all mistakes answered\n");
    assert_eq!(installed.pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
}

#[test]
fn the_archive_links_with_what_pkg_config_says_for_it() {
    let Some(installed) = Installed::new() else { return };
    let archive = installed.lib().join("libcourserstack.a").display().to_string();
    let libraries = installed.pkg_config(&["--libs", "--static"]);
    let libraries: Vec<String> =
        libraries.into_iter().map(|word| if word == "-lcourserstack" { archive.clone() } else { word }).collect();
    let calls = installed.compile(("cc", "calls"), &["-std=c99"], &libraries);
    let needed = out(Command::new("readelf").arg("-d").arg(&calls).output().expect("it runs"));
    assert!(!needed.contains("courserstack"), "{needed}");
    assert_eq!(installed.run(&[], &calls), "all calls answered\n");
}

#[test]
fn the_header_serves_a_program_in_cpp() {
    let Some(installed) = Installed::new().filter(|_| has("g++")) else { return };
    let source = installed.folder.path().join("cpp.cpp");
    let text = "#include <courser.h>\nint main() { courser_stack *stack = nullptr; uint64_t session = 0;\n\
        if (courser_open(nullptr, &stack) || courser_create(stack, COURSER_TCP, &session)) return 1;\n\
        int closed = courser_close(stack, session); courser_shut(stack); return closed; }\n";
    std::fs::write(&source, text).expect("it is written");
    let program = installed.folder.path().join("cpp");
    let mut compile = Command::new("g++");
    compile.args(["-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic"]).args(installed.pkg_config(&["--cflags"]));
    compile.arg(&source).arg("-o").arg(&program).args(installed.pkg_config(&["--libs"]));
    out(compile.output().expect("the compiler runs"));
    assert_eq!(installed.run(&[], &program), "");
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let Some(installed) = Installed::new() else { return };
    let listed =
        Command::new("nm").args(["-D", "--defined-only"]).arg(installed.lib().join("libcourserstack.so")).output();
    let listed = out(listed.expect("nm runs"));
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let header = include_str!("../include/courser.h");
    let declared = header.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let declared: BTreeSet<&str> = declared
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("courser_"))
        .collect();
    assert!(declared.len() > 30, "{declared:?}");
    assert_eq!(exported, declared);
}

/// Whether a compiler can build what watches itself.
fn sanitizes(compiler: &str) -> bool {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let source = folder.path().join("empty.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("it is written");
    let mut compile = Command::new(compiler);
    compile.args(SANITIZERS).arg(&source).arg("-o").arg(folder.path().join("empty"));
    let can = compile.output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: {compiler} has no sanitizers here");
    }
    can
}

const SANITIZERS: [&str; 3] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"];

#[test]
fn sanitizers_find_no_bad_access_no_leak_and_nothing_undefined_in_programs_in_c() {
    for compiler in ["clang", "gcc"].into_iter().filter(|compiler| has(compiler) && sanitizes(compiler)) {
        let Some(installed) = Installed::new() else { return };
        let options = [&["-std=c99"], &SANITIZERS[..]].concat();
        let archive = [installed.lib().join("libcourserstack.a").display().to_string(), "-ldl".into(), "-lm".into()];
        for (name, says) in [("calls", "all calls answered\n"), ("hostile", "all mistakes answered\n")] {
            for libraries in [&installed.pkg_config(&["--libs"])[..], &archive] {
                let program = installed.compile((compiler, name), &options, libraries);
                assert_eq!(installed.run(&[], &program), says, "{compiler}");
            }
        }
    }
}

/// The engine's arithmetic is beyond what Valgrind knows.
#[cfg(not(feature = "engine"))]
#[test]
fn valgrind_finds_no_bad_access_and_no_leak() {
    let Some(installed) = Installed::new().filter(|_| has("valgrind")) else { return };
    let shared = installed.pkg_config(&["--libs"]);
    let valgrind = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=yes"];
    for (name, says) in [("calls", "all calls answered\n"), ("hostile", "all mistakes answered\n")] {
        let program = installed.compile(("cc", name), &["-std=c99"], &shared);
        assert_eq!(installed.run(&valgrind, &program), says);
    }
}
