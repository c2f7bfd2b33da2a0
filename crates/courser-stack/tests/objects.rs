//! `show sessions` shows every object of the seed's picture, and what each belongs to.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use std::collections::HashSet;

use common::Place;
use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Stack};
use courser_stack::host::Config;
use serde_json::Value;

fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_object_is_shown_with_what_it_belongs_to() {
    let place = Place::new(Config::default());
    let identity = Throwaway::local().unwrap();
    let (server, client) = (Stack::attach(&place.socket()).unwrap(), Stack::attach(&place.socket()).unwrap());
    let listener = server.create(Protocol::Quic).unwrap();
    server.add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes()).unwrap();
    server.bind(listener, "quic://127.0.0.1:0").unwrap();
    server.listen(listener, 8).unwrap();
    let calling = client.create(Protocol::Quic).unwrap();
    client.set_trust(calling, Trust::Anybody).unwrap();
    client.connect(calling, &format!("quic://{}", server.local_addr(listener).unwrap())).unwrap();
    let accepted = server.accept(listener).unwrap();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream = client.create(Protocol::Quic).unwrap();
        client.connect_stream(stream, calling, Dir::Bi).unwrap();
        client.write_all(stream, b"hello").unwrap();
        streams.push((stream, server.accept(accepted).unwrap()));
    }
    let shown = place.ask("show sessions");
    let objects = shown["objects"].as_array().unwrap();
    let ids: HashSet<&str> = objects.iter().map(|object| object["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), objects.len(), "names are unique: {shown:#}");
    let orphan = objects.iter().find(|object| object["parent"].as_str().is_some_and(|parent| !ids.contains(parent)));
    assert_eq!(orphan, None, "what something belongs to is shown too");
    // The server's side of the picture.
    assert_eq!(of(objects, "application").len(), 2);
    let [listening] = of(objects, "listener")[..] else { panic!("{shown:#}") };
    let [context] = of(objects, "listener context")[..] else { panic!("{shown:#}") };
    let [udp] = of(objects, "UDP listen session")[..] else { panic!("{shown:#}") };
    let [listen] = of(objects, "listen session")[..] else { panic!("{shown:#}") };
    assert_eq!((&context["parent"], &udp["parent"]), (&listening["id"], &context["id"]));
    assert_eq!((&listen["parent"], &listen["state"]), (&listening["id"], &Value::from("listening")));
    // Both ends are here: two connections, each with one UDP session, which is the other's turned round.
    let connections = of(objects, "connection session");
    let flows = of(objects, "UDP session");
    assert_eq!((connections.len(), flows.len()), (2, 2), "{shown:#}");
    let end = |flow: &Value, which: &str| flow[which].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(end(flows[0], "local"), end(flows[1], "remote"));
    assert_eq!(end(flows[1], "local"), end(flows[0], "remote"));
    for connection in connections {
        let own: Vec<_> = flows.iter().filter(|flow| flow["parent"] == connection["id"]).collect();
        assert_eq!((own.len(), &connection["streams"]), (1, &Value::from(3)), "{shown:#}");
    }
    // However many streams there are, they have no UDP session and no addresses of their own.
    let shown_streams = of(objects, "stream session");
    assert_eq!(shown_streams.len(), 6);
    assert!(shown_streams.iter().all(|stream| stream.get("remote").is_none() && stream.get("local").is_none()));
    // The program's own names of them are the service's handles.
    let handle =
        |stack: &Stack, session| format!("{}/{:#018x}", stack.limits().application, stack.handle(session).unwrap());
    for (here, there) in &streams {
        assert!(ids.contains(handle(&client, *here).as_str()) && ids.contains(handle(&server, *there).as_str()));
    }
    let text = place.host().command(&["show", "sessions"], false).unwrap();
    assert!(text.contains("└─ UDP session") || text.contains("├─ UDP session"), "{text}");
}
