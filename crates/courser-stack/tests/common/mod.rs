//! What the tests of the host stack share: a service in a folder of its own, programs in other processes, and what the system
//! says that the process has.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service};

/// Nothing that these tests wait for takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A service, and the folder of its socket.
pub struct Place {
    pub service: Service,
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(Host::new(config), Options::new(folder.path().join("s"))).unwrap();
        Self { service, folder }
    }

    pub fn socket(&self) -> PathBuf {
        self.service.path().to_owned()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn host(&self) -> &Host {
        self.service.host()
    }

    /// What the debug command line says, as JSON.
    pub fn ask(&self, command: &str) -> serde_json::Value {
        let words: Vec<&str> = command.split(' ').collect();
        serde_json::from_str(&self.host().command(&words, true).unwrap()).unwrap()
    }
}

/// Waits until `done`, or fails with what was waited for.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// This test program as another process: it runs the test `role`, which does nothing unless it is asked for by the variable.
pub fn program(role: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([role, "--exact", "--nocapture", "--test-threads=1"]).env("COURSER_TEST_ROLE", role);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().unwrap()
}

/// Whether this process was started to play that role.
pub fn plays(role: &str) -> bool {
    std::env::var("COURSER_TEST_ROLE").is_ok_and(|asked| asked == role)
}

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// What the system says that this process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possessions {
    /// Descriptors by what they are.
    pub descriptors: BTreeMap<String, usize>,
    /// Threads of the library: those of the tests themselves come and go.
    pub threads: usize,
    /// Mappings of shared memory.
    pub segments: usize,
}

impl Possessions {
    pub fn now() -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let kind = target.to_string_lossy().split(['[', ' ']).next().unwrap_or_default().to_owned();
            *descriptors.entry(kind).or_insert(0) += 1;
        }
        let ours = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("courser-"))
        };
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter(ours).count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let segments = maps.lines().filter(|line| line.contains("memfd:")).count();
        Self { descriptors, threads, segments }
    }
}
