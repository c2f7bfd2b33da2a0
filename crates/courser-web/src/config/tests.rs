//! Tests of the configuration.

use super::*;

#[test]
fn the_default_text_is_the_default() {
    let read = Config::parse(DEFAULT_TEXT).unwrap();
    let line = read.sites[0].line;
    assert!(DEFAULT_TEXT.lines().nth(line - 1).unwrap().starts_with("[[site]]"), "{line}");
    let expected =
        Config { sites: vec![Site { files: Some(Files::default()), line, ..Site::default() }], ..Config::default() };
    assert_eq!(read, expected);
    read.check().unwrap();
}

#[test]
fn every_key_that_is_shown_as_possible_is_known_with_its_default() {
    // Takes the comment signs away from keys and tables; explanations have a space and no equals sign there.
    let keys =
        ["certificate =", "key =", "secret =", "metrics =", "user = \"", "group =", "hosts =", "fallback =", "types ="];
    let text: String = DEFAULT_TEXT
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if keys.iter().any(|key| rest.starts_with(key)) || rest.starts_with("[site.headers]") => rest,
            Some(rest) if rest.starts_with("strict-transport-security") => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = Config::parse(&text).unwrap();
    config.check().unwrap();
    assert_eq!(config.server.metrics, Some("127.0.0.1:9433".parse().unwrap()));
    assert_eq!(config.sites[0].hosts.len(), 2);
    assert_eq!(config.sites[0].fields().unwrap().len(), 1);

    let (_, proxy) = DEFAULT_TEXT.split_once("# [site.proxy]\n").unwrap();
    let (proxy, stack) = proxy.split_once("\n# The host stack").unwrap();
    let proxy: String = proxy.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let config = Config::parse(&format!("[[site]]\n[site.proxy]\n{proxy}")).unwrap();
    let found = config.sites[0].proxy.clone().unwrap();
    assert_eq!(found, Proxy { origin: found.origin.clone(), ca: found.ca.clone(), ..Proxy::default() });
    config.check().unwrap();

    let (_, stack) = stack.split_once("[stack]\n").unwrap();
    let keys = ["socket =", "trace =", "name =", "look-us =", "[[stack.allow]]", "user =", "listen ="];
    let shown = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if keys.iter().any(|key| rest.starts_with(key)) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let stack = Config::parse(&format!("[stack]\n{}", stack.lines().map(shown).collect::<String>())).unwrap().stack;
    assert_eq!((stack.name.as_deref(), stack.look_us, stack.rules.len()), (Some("my-program"), Some(50), 1));
    let usual = Stack { name: None, look_us: None, rules: Vec::new(), socket: None, trace: None, ..stack };
    assert_eq!(usual, Stack::default());
}

#[test]
fn mistakes_have_a_line_and_a_suggestion() {
    for (text, place, what, help) in [
        ("[server]\nlisen = []", (2, 1), "nobody knows the key `lisen`", "did you mean `listen`?"),
        ("[sever]\n", (1, 2), "`sever`", "did you mean `server`?"),
        ("\n[[site]]\n[site.file]\nroot = \"x\"", (3, 7), "`file`", "did you mean `files`?"),
        ("[[site]]\n[site.proxy]\npreserve_host = true", (3, 1), "`preserve_host`", "`preserve-host`"),
        ("[log]\nformat = \"jsn\"", (2, 10), "`jsn` is none of the choices", "did you mean `json`?"),
        ("[limits]\nzzz = 1", (2, 1), "`zzz`", "possible are connections, streams"),
    ] {
        let mistake = Config::parse(text).unwrap_err();
        assert_eq!(mistake.place, Some(place), "{text}: {mistake}");
        assert!(mistake.what.contains(what), "{mistake}");
        assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{mistake}");
    }
    for (text, line, what) in [
        ("[server]\nlisten = [\"nowhere\"]", 2, "socket address"),
        ("[server]\ndrain = \"soon\"", 2, "write a time"),
        ("[limits]\n\nfields = \"4X\"", 3, "number of bytes"),
        ("[limits]\nstreams = -1", 2, "integer"),
        ("[server]\nhttp3 = 1", 2, "boolean"),
        ("[server\n", 1, ""),
        ("[log]\naccess = \"a\"\naccess = \"b\"", 3, "duplicate key"),
    ] {
        let mistake = Config::parse(text).unwrap_err();
        assert_eq!(mistake.place.map(|p| p.0), Some(line), "{text}: {mistake}");
        assert!(mistake.what.contains(what), "{mistake}");
        assert!(!mistake.to_string().contains('\n'), "{mistake:?}");
    }
}

#[test]
fn what_cannot_be_is_found_without_the_machine() {
    let site = "[[site]]\n[site.files]\n";
    for (text, line, what) in [
        ("".to_owned(), 0, "no site"),
        ("[[site]]".to_owned(), 1, "neither files nor a proxy"),
        ("[[site]]\n[site.files]\n[site.proxy]\norigin=\"http://h\"".to_owned(), 1, "not both"),
        (format!("{site}{site}"), 3, "two sites answer to every other name"),
        ("[[site]]\nhosts=[\"a\",\"A\"]\n[site.files]".to_owned(), 1, "two sites answer to `A`"),
        ("[[site]]\nhosts=[\"a:1\"]\n[site.files]".to_owned(), 1, "not the name of a host"),
        ("[[site]]\nhosts=[\"*.\"]\n[site.files]".to_owned(), 1, "not the name of a host"),
        ("[[site]]\nhosts=[\"a\"]\nkey=\"k\"\n[site.files]".to_owned(), 1, "belong together"),
        ("[[site]]\nkey=\"k\"\ncertificate=\"c\"\n[site.files]".to_owned(), 1, "is the server's"),
        (format!("[server]\nkey=\"k\"\n{site}"), 0, "belong together"),
        (format!("[server]\nlisten=[]\n{site}"), 0, "no address"),
        (format!("[limits]\nconnections=0\n{site}"), 0, "permit no connection"),
        (format!("[limits]\nfields=10\n{site}"), 0, "from 1K to 16M"),
        (format!("{site}[site.headers]\n\"a b\"=\"x\""), 1, "not the name of a field"),
        (format!("{site}[site.headers]\nx=\"\\u0000\""), 1, "no field can have"),
        (format!("{site}[site.headers]\nContent-Length=\"1\""), 1, "set by the server alone"),
        (format!("{site}index=[\"a/b\"]"), 1, "no slash"),
        (format!("{site}types={{x=\"y\"}}"), 1, "no media type"),
        ("[[site]]\n[site.proxy]\norigin=\"ftp://h\"".to_owned(), 1, "neither http:// nor https://"),
        ("[[site]]\n[site.proxy]\norigin=\"http://h/p\"".to_owned(), 1, "has a path"),
        ("[[site]]\n[site.proxy]\norigin=\"http://u@h\"".to_owned(), 1, "a user"),
        ("[[site]]\n[site.proxy]\norigin=\"http://h\"\nconnections=0".to_owned(), 1, "no connection to the origin"),
    ] {
        let mistake = Config::parse(&text).unwrap().check().unwrap_err();
        assert!(mistake.what.contains(what), "{text}: {mistake}");
        assert_eq!(mistake.place.map_or(0, |p| p.0), line, "{text}: {mistake}");
    }
}

#[test]
fn paths_begin_at_the_folder_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("courser.toml");
    std::fs::write(
        &file,
        "[server]\ncertificate=\"c\"\nkey=\"/k\"\nsecret=\"s\"\n[log]\naccess=\"log\"\n[[site]]\n[site.files]\nroot=\"www\"",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.server.certificate, Some(dir.path().join("c")));
    assert_eq!(config.server.key, Some("/k".into()));
    assert_eq!(config.server.secret, Some(dir.path().join("s")));
    assert_eq!(config.sites[0].files.as_ref().unwrap().root, dir.path().join("www"));
    assert_eq!(config.log.access, dir.path().join("log").to_str().unwrap());

    std::fs::write(&file, "[server]\nkye=\"x\"").unwrap();
    let said = Config::load(&file).unwrap_err().to_string();
    assert!(said.ends_with("courser.toml:2:1: nobody knows the key `kye`; did you mean `key`?"), "{said}");
    assert!(Config::load(&dir.path().join("none")).unwrap_err().to_string().contains("none: No such file"));
}
