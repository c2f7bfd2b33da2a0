//! What the border between processes costs: the same two programs, with the host inside their process and with a service between
//! theirs.
//!
//! `cargo run --release -p courser-stack --example border -- [ROUNDS]`
//!
//! Each round asks 20,000 times with 64 bytes on one stream, one question at a time, then moves 1 GiB one way in blocks of 64 KiB.
//! Inside: server and client are threads beside the host's workers. Outside: three processes, the service in this one.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("segments between processes are for Linux");
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use courser::certs::Throwaway;
    use courser_session::control::{Protocol, Trust};
    use courser_session::stack::{Dir, Session, Stack};
    use courser_stack::host::{Config, Host};
    use courser_stack::service::{Options, Service};

    const QUESTION: usize = 64;
    const TRIPS: usize = 20_000;
    const BULK: u64 = 1 << 30;
    const BLOCK: usize = 64 << 10;

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["server", socket] => serve(&Stack::attach(Path::new(socket))?, &mut |uri| println!("{uri}")),
            ["client", socket, uri] => {
                let (trip, bulk) = ask(&Stack::attach(Path::new(socket))?, uri)?;
                println!("{trip} {bulk}");
                Ok(())
            }
            [] => compare(3),
            [rounds] => compare(rounds.parse()?),
            _ => Err("border [ROUNDS]".into()),
        }
    }

    fn compare(rounds: usize) -> Result<(), Box<dyn Error>> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            inside.push(within()?);
            outside.push(across()?);
        }
        println!("| | 64 bytes there and back, µs | one way, Gb/s |\n|---|--:|--:|");
        for (name, runs) in [("inside the process", &inside), ("three processes", &outside)] {
            println!("| {name} | {:.1} | {:.2} |", median(runs, |run| run.0), median(runs, |run| run.1));
        }
        Ok(())
    }

    fn median(runs: &[(f64, f64)], of: fn(&(f64, f64)) -> f64) -> f64 {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// Both programs beside the host.
    fn within() -> Result<(f64, f64), Box<dyn Error>> {
        let host = Host::new(Config::default());
        let (server, client) = (host.stack("server")?, host.stack("client")?);
        let (tell, told) = std::sync::mpsc::channel();
        let serving =
            std::thread::spawn(move || serve(&server, &mut |uri| _ = tell.send(uri)).map_err(|e| e.to_string()));
        let measured = ask(&client, &told.recv()?)?;
        drop(client);
        serving.join().map_err(|_| "the server panicked")??;
        Ok(measured)
    }

    /// Both programs in processes of their own.
    fn across() -> Result<(f64, f64), Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("courser-border-{}", std::process::id()));
        let _service = Service::start(Host::new(Config::default()), Options::new(&path))?;
        let socket = path.to_string_lossy().into_owned();
        let mut server = program(&["server", &socket])?;
        let mut said = String::new();
        let mut from_server = BufReader::new(server.stdout.take().ok_or("no output")?);
        from_server.read_line(&mut said)?;
        let client = program(&["client", &socket, said.trim()])?.wait_with_output()?;
        server.wait()?;
        let said = String::from_utf8(client.stdout)?;
        let (trip, bulk) = said.trim().split_once(' ').ok_or("the client failed")?;
        Ok((trip.parse()?, bulk.parse()?))
    }

    fn program(args: &[&str]) -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?).args(args).stdout(Stdio::piped()).spawn()
    }

    /// Answers questions on the first stream, takes bytes on the second.
    fn serve(stack: &Stack, tell: &mut dyn FnMut(String)) -> Result<(), Box<dyn Error>> {
        let identity = Throwaway::local()?;
        let listener = stack.create(Protocol::Quic)?;
        stack.add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
        stack.bind(listener, "quic://127.0.0.1:0")?;
        stack.listen(listener, 1)?;
        tell(format!("quic://{}", stack.local_addr(listener)?));
        let connection = stack.accept(listener)?;
        let mut block = vec![0; BLOCK];
        let questions = stack.accept(connection)?;
        loop {
            let count = stack.read(questions, &mut block)?;
            if count == 0 {
                break;
            }
            stack.write_all(questions, &block[..count])?;
        }
        stack.close(questions)?;
        let bulk = stack.accept(connection)?;
        while stack.read(bulk, &mut block)? > 0 {}
        stack.write_all(bulk, b"!")?;
        stack.close(bulk)?;
        // The client closes the connection.
        while stack.accept(connection).is_ok() {}
        Ok(())
    }

    /// Microseconds of a trip, gigabits per second one way.
    fn ask(stack: &Stack, uri: &str) -> Result<(f64, f64), Box<dyn Error>> {
        let connection = stack.create(Protocol::Quic)?;
        stack.set_trust(connection, Trust::Anybody)?;
        stack.connect(connection, uri)?;
        let questions = open(stack, connection)?;
        let (question, mut answer) = ([7; QUESTION], [0; QUESTION]);
        let mut took: Vec<Duration> = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let began = Instant::now();
            stack.write_all(questions, &question)?;
            let mut have = 0;
            while have < QUESTION {
                have += stack.read(questions, &mut answer[have..])?;
            }
            took.push(began.elapsed());
        }
        stack.finish(questions)?;
        took.sort_unstable();
        let bulk = open(stack, connection)?;
        let block = vec![7; BLOCK];
        let began = Instant::now();
        for _ in 0..BULK / BLOCK as u64 {
            stack.write_all(bulk, &block)?;
        }
        stack.finish(bulk)?;
        stack.read(bulk, &mut answer[..1])?;
        let rate = BULK as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e9;
        stack.close(connection)?;
        Ok((took[TRIPS / 2].as_secs_f64() * 1e6, rate))
    }

    fn open(stack: &Stack, connection: Session) -> Result<Session, Box<dyn Error>> {
        let stream = stack.create(Protocol::Quic)?;
        stack.connect_stream(stream, connection, Dir::Bi)?;
        Ok(stream)
    }
}
