//! Commands and quoted code in Markdown.

/// The texts of the blocks of shell commands in Markdown: fenced as `sh`, or indented by four
/// spaces outside of other fences.
pub fn blocks(markdown: &str) -> Vec<String> {
    let (mut all, mut fence, mut indented) = (Vec::new(), None, false);
    for line in markdown.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_none() { Some(language) } else { None };
            indented = false;
            if fence == Some("sh") {
                all.push(String::new());
            }
            continue;
        }
        let code = match fence {
            Some("sh") => Some(line),
            Some(_) => None,
            None => line.strip_prefix("    "),
        };
        match code {
            Some(code) => {
                if fence.is_none() && !indented {
                    all.push(String::new());
                }
                let block = all.last_mut().expect("pushed above");
                block.push_str(code);
                block.push('\n');
                indented = fence.is_none();
            }
            None => indented &= line.is_empty(),
        }
    }
    all
}

/// The commands of a block: without comments, continued lines joined, and split at `;`.
pub fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let without_comment = |line: &str| -> String {
        let mut signs = line.match_indices('#').map(|(at, _)| at);
        let start = signs.find(|at| *at == 0 || line[..*at].ends_with(' '));
        line[..start.unwrap_or(line.len())].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    joined
        .lines()
        .flat_map(|line| without_comment(line).split("; ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|command| !command.is_empty())
        .collect()
}

/// The commands of all blocks of a text.
pub fn all_commands(markdown: &str) -> Vec<String> {
    blocks(markdown).iter().flat_map(|block| commands(block)).collect()
}

/// The name of the command of a line, such as `segment train`, and where it ends.
pub fn command_name(line: &str) -> Option<(&str, usize)> {
    const GROUPS: [&str; 3] = ["segment", "detect", "anomaly"];
    let start = line.find("csae ")? + "csae ".len();
    let mut words = line[start..].split(' ');
    let first = words.next()?;
    let more =
        if GROUPS.contains(&first) { words.next().map_or(0, |word| word.len() + 1) } else { 0 };
    let end = start + first.len() + more;
    Some((&line[start..end], end))
}

/// The quoted code of Markdown outside of blocks. A line break in it is a space.
pub fn quotes(markdown: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && !line.starts_with("```") && !line.starts_with("    ") {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn commands_are_read_from_blocks() {
    let indented = "Text.\n\n    csae a  # b\n\n    csae c\n\n";
    let fenced = "```toml\nx = 1\n```\n\n```sh\n# d\ncsae e \\\n  --f 'g#h'; csae i\n```\n";
    let markdown = &format!("{indented}{fenced}");
    assert_eq!(all_commands(markdown), ["csae a", "csae c", "csae e --f 'g#h'", "csae i"]);
    assert_eq!(blocks("- item\n    - nested\n").len(), 1);
}
