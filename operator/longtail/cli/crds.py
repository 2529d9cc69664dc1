"""``longtail crds``: the CustomResourceDefinition that this version wants, to apply or to check in."""

from pathlib import Path

import click

from longtail.api.crd import render_crds


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Directory to write the files into, instead of printing them.",
)
def crds(*, out: Path | None) -> None:
    """Print the CustomResourceDefinition, for example: longtail crds | kubectl apply --server-side -f -."""
    files = render_crds()
    if out is None:
        click.echo("---\n".join(files.values()), nl=False)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8")
        click.echo(out / name)
