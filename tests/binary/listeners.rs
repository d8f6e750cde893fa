//! Where it listens: taken ports, Unix sockets, listeners of single routes.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::one_route;
use super::process::{Folder, Running, get, get_unix, run, text};
use super::upstream::Streams;

#[tokio::test]
async fn a_taken_port_is_told_and_exits_1() {
    let folder = Folder::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let yaml = one_route(([127, 0, 0, 1], 9).into(), "");
    for part in ["listen: 127.0.0.1:0\nadmin", "admin: {listen: 127.0.0.1:0}"] {
        assert!(yaml.contains(part));
        let yaml = yaml.replace(part, &part.replace("127.0.0.1:0", &format!("'{taken}'")));
        let file = folder.write("given.yaml", &yaml);
        let output = run(&folder, &["run", "--config", file.to_str().unwrap()], &[]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&format!("pillion: cannot listen on {taken}: the port is taken")), "{said}");
        assert!(!said.contains("listening on"), "{said}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_told_and_exits_1() {
    let folder = Folder::new();
    // Of TEST-NET-1 (RFC 5737): no machine has it.
    let yaml = one_route(([127, 0, 0, 1], 9).into(), "").replacen("127.0.0.1:0", "192.0.2.1:8080", 1);
    let file = folder.write("given.yaml", &yaml);
    let output = run(&folder, &["run", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("pillion: cannot listen on 192.0.2.1:8080: "),
        "{}",
        text(&output.stderr)
    );
}

fn on_socket(upstream: &Streams, path: &std::path::Path) -> String {
    one_route(upstream.address, "").replacen("127.0.0.1:0", &format!("unix:{}", path.display()), 1)
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_removed_at_exit() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    upstream.finish();
    let socket = folder.path().join("p.sock");
    let mut pillion = Running::start(&folder, &on_socket(&upstream, &socket), &[]).await;
    pillion.line(&format!("listening on unix:{} (data)", socket.display())).await;
    let (status, content) = get_unix(&socket, "/openai/v1/stream").await;
    assert_eq!(status, 200);
    assert!(content.contains("[DONE]"), "{content}");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    pillion.signal("TERM").await;
    assert_eq!(pillion.exit().await.code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn the_socket_file_of_a_dead_process_is_replaced() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    upstream.finish();
    let socket = folder.path().join("p.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let _pillion = Running::start(&folder, &on_socket(&upstream, &socket), &[]).await;
    assert_eq!(get_unix(&socket, "/openai/v1/stream").await.0, 200);
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_left_alone() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let socket = folder.path().join("p.sock");
    let _holder = UnixListener::bind(&socket).unwrap();
    let file = folder.write("given.yaml", &on_socket(&upstream, &socket));
    let output = run(&folder, &["run", "--config", file.to_str().unwrap()], &[]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("pillion: cannot listen on unix:{}: ", socket.display())), "{said}");
    assert!(socket.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let precious = folder.write("precious", "data");
    let file = folder.write("given.yaml", &on_socket(&upstream, &precious));
    let output = run(&folder, &["run", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
}

#[tokio::test]
async fn a_route_with_a_listener_of_its_own_is_on_that_one_only() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    upstream.finish();
    let own = format!(
        "  - {{name: own, listen: '127.0.0.1:0', upstream: 'http://{}', preset: openai}}\n",
        upstream.address
    );
    let mut pillion = Running::start(&folder, &one_route(upstream.address, &own), &[]).await;
    let (data, route) = (pillion.data().await, pillion.address("route own").await);
    assert_eq!(get(route, "/v1/stream").await.0, 200, "its path is /");
    assert_eq!(get(data, "/openai/v1/stream").await.0, 200);
    assert_eq!(get(data, "/v1/stream").await.0, 404);
    pillion.line("NO_PROXY").await;
    let route_lines: Vec<_> = pillion.seen.iter().filter(|line| line.contains("OPENAI_BASE_URL=")).collect();
    assert_eq!(
        route_lines,
        [
            &format!("  OPENAI_BASE_URL=http://{data}/openai/v1"),
            &format!("  OPENAI_BASE_URL=http://{route}/v1")
        ]
    );
}
