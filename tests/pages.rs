//! What the pages claim to be shown by tests is shown by tests that exist.

use std::path::Path;

/// The links with a title in a page: path and title.
fn links(page: &str) -> Vec<(String, String)> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| {
            let (link, _) = rest.split_once(')')?;
            let (path, title) = link.split_once(" \"")?;
            Some((path.to_owned(), title.trim_end_matches('"').to_owned()))
        })
        .collect()
}

#[test]
fn every_promise_of_delivery_links_to_a_test_that_exists() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("delivery.md")).unwrap();
    let links = links(&page);
    assert!(links.len() > 30, "{links:?}");
    for (path, test) in links {
        let source = std::fs::read_to_string(docs.join(&path))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let found = source.contains(&format!("fn {test}("));
        assert!(found, "{path} has no test `{test}`");
    }
}

#[test]
fn every_cell_of_the_table_of_faults_links_to_a_test() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/delivery.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) =
        page.split_once("| fault | control, queue | command | stream | estop |").unwrap();
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 14, "{rows:?}");
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 5, "{row}");
        for cell in &cells[1..] {
            assert!(!links(cell).is_empty(), "{}: {cell}", cells[0]);
        }
    }
}
