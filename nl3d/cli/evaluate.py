"""``nl3d evaluate``: CMC, mAP and mINP of embeddings, by the protocol that the options spell out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.options import note, positive

if TYPE_CHECKING:
    from nl3d.metrics import KReciprocal, RankingResult, SplitSummary

DESCRIPTION = """\
Score the rankings of embeddings: nl3d evaluate QUERY GALLERY, or nl3d evaluate ALL --labels TABLE.csv, where the part
column says query or gallery; without that column, or without a table, ALL is ranked against itself. Files are those of
nl3d embed, or .safetensors, .npz or .pt with embeddings (or features), pids, camids and names, or .npy. Several splits,
by --split or by several tables, give mean and deviation."""

RERANKING = ("k1", "k2", "original_weight")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help="CMC, mAP and mINP of embeddings", description=DESCRIPTION)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="QUERY GALLERY, or one file of everything")
    parser.add_argument(
        "--split", nargs="+", action="append", default=[], type=Path, metavar="FILE",
        help="the files of one split, in place of FILE; once for each split",
    )  # fmt: skip
    parser.add_argument(
        "--labels", nargs="+", action="extend", default=[], type=Path, metavar="TABLE.csv",
        help="labels by name: tracklet (or path), pid, camid, part; one table, or one for each split",
    )  # fmt: skip
    parser.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean")
    parser.add_argument(
        "--ap", choices=("interpolated", "trapezoid"), default="interpolated",
        help="rule for average precision; trapezoid is the official one of MARS (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--ranks", nargs="+", type=positive, default=[1, 5, 10, 20], metavar="K", help="ranks of the CMC (1 5 10 20)"
    )
    parser.add_argument(
        "--junk-pids", nargs="*", type=int, default=[-1], metavar="PID", help="neither right nor wrong (-1)"
    )
    parser.add_argument(
        "--distractor-pids", nargs="*", type=int, default=[], metavar="PID", help="wrong for every query (none)"
    )
    parser.add_argument(
        "--keep-same-camera", action="store_true", help="rank the query's person under the query's camera too"
    )
    parser.add_argument(
        "--clothes", choices=("any", "same", "changed"), default="any",
        help="rank the query's person in any clothes, or only in the same or in other ones, by the table's column "
        "clothes (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    parser.add_argument("--k1", type=positive, metavar="K", help="neighbours that --rerank looks at (20)")
    parser.add_argument("--k2", type=positive, metavar="K", help="neighbours that --rerank averages over (6)")
    parser.add_argument("--original-weight", type=float, metavar="W", help="of the distance without --rerank (0.3)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    sets = _sets(args)
    rerank = _reranking(args)
    outcomes = []
    for number, (files, labels) in enumerate(sets, start=1):
        try:
            outcomes.append(_evaluate(args, files, labels, rerank))
        except ValueError as error:
            if len(sets) == 1:
                raise
            raise ValueError(f"split {number}: {error}") from error
    if args.json:
        sys.stdout.write(json.dumps(_as_json(args, outcomes, rerank), indent=1) + "\n")
    else:
        sys.stdout.write(_table(args, outcomes))


def _sets(args: argparse.Namespace) -> list[tuple[list[Path], Path | None]]:
    """Pair the files of every split with its table."""
    if bool(args.files) == bool(args.split):
        raise ValueError("FILE or --split must be given, and not both; name files before --labels and other options")
    splits = args.split or [args.files]
    long = next((files for files in splits if len(files) > 2), None)
    if long is not None:
        raise ValueError(f"FILE must be one file, or query and gallery, got {len(long)}; see --split for more")
    tables = args.labels or [None]
    if len(splits) > 1 and len(tables) > 1 and len(splits) != len(tables):
        raise ValueError(f"--labels must be one table, or one for each of {len(splits)} splits, got {len(tables)}")
    count = max(len(splits), len(tables))
    splits = splits * count if len(splits) == 1 else splits
    tables = tables * count if len(tables) == 1 else tables
    return list(zip(splits, tables, strict=True))


def _reranking(args: argparse.Namespace) -> KReciprocal | None:
    from nl3d.metrics import KReciprocal

    given = {name: getattr(args, name) for name in RERANKING if getattr(args, name) is not None}
    if given and not args.rerank:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} must come with --rerank, which it is a setting of")
    return KReciprocal(**given) if args.rerank else None


def _evaluate(
    args: argparse.Namespace, files: list[Path], labels: Path | None, rerank: KReciprocal | None
) -> tuple[str, RankingResult]:
    """Score one split; gives the protocol with it."""
    from nl3d.embedding.network import pick_device
    from nl3d.metrics import evaluate
    from nl3d.retrieval.scoring.labelled import read_retrieval

    device = pick_device(args.device)
    rules = {
        "junk_pids": args.junk_pids,
        "distractor_pids": args.distractor_pids,
        "exclude_same_camera": not args.keep_same_camera,
    }
    found = read_retrieval(*files, labels=labels, **rules)
    for left_out in found.notes:
        note(left_out)
    if args.clothes != "any" and (found.q_clothes is None or found.g_clothes is None):
        raise ValueError(f"--clothes {args.clothes} needs a column clothes in the table of --labels")
    query, gallery, q_pids, g_pids, q_camids, g_camids = found.arguments()
    result = evaluate(
        query.to(device), gallery.to(device), q_pids, g_pids, q_camids, g_camids,
        q_clothes=found.q_clothes, g_clothes=found.g_clothes, clothes=args.clothes,
        metric=args.metric, ap=args.ap, ranks=args.ranks, rerank=rerank, **rules,
    )  # fmt: skip
    return found.protocol, result


def _as_json(
    args: argparse.Namespace, outcomes: list[tuple[str, RankingResult]], rerank: KReciprocal | None
) -> dict[str, Any]:
    rules = {
        "metric": args.metric,
        "ap": args.ap,
        "exclude_same_camera": not args.keep_same_camera,
        "clothes": args.clothes,
        "junk_pids": args.junk_pids,
        "distractor_pids": args.distractor_pids,
        "rerank": rerank and asdict(rerank),
    }
    each = [{"protocol": protocol, **rules, **asdict(result)} for protocol, result in outcomes]
    if len(each) == 1:
        return each[0]
    summary = _summary(outcomes)
    scores = {name: getattr(summary, name)._asdict() for name in ("mAP", "mINP")}
    cmc = {rank: score._asdict() for rank, score in summary.cmc.items()}
    counts = {name: [one[name] for one in each] for name in ("num_valid_queries", "num_queries_without_match")}
    protocol = " and ".join(sorted({protocol for protocol, _ in outcomes}))
    head = {"protocol": protocol, **rules, "num_splits": len(each), "cmc": cmc}
    return {**head, **scores, **counts, "splits": each}


def _summary(outcomes: list[tuple[str, RankingResult]]) -> SplitSummary:
    from nl3d.metrics import summarise_splits

    return summarise_splits([result for _, result in outcomes])


def _table(args: argparse.Namespace, outcomes: list[tuple[str, RankingResult]]) -> str:
    results = [result for _, result in outcomes]
    if len(results) == 1:
        scored: Any = results[0]
        lines = []
    else:
        scored = _summary(outcomes)
        lines = [f"{'':<7}  {'mean':>7}  deviation"]
    scores = {f"rank-{rank}": score for rank, score in scored.cmc.items()} | {"mAP": scored.mAP, "mINP": scored.mINP}
    for name, score in scores.items():
        mean, *deviation = score if isinstance(score, tuple) else (score,)
        lines.append(f"{name:<7}  {100 * mean:5.1f} %" + "".join(f"  {100 * value:7.1f} %" for value in deviation))
    valid = sum(result.num_valid_queries for result in results)
    unmatched = sum(result.num_queries_without_match for result in results)
    junk = sum(result.num_junk for result in results)
    gallery = sum(result.num_gallery for result in results)
    lines.append(f"{f'{len(results)} splits: ' if len(results) > 1 else ''}{valid} queries with a match, which count, "
                 f"{unmatched} without; {gallery} gallery tracklets, {junk} junk left out")  # fmt: skip
    camera = "kept" if args.keep_same_camera else "left out"
    again = ", re-ranked" if args.rerank else ""
    worn = {"any": "", "same": " and in other clothes left out", "changed": " and in the same clothes left out"}
    lines.append(
        f"{args.metric} distance{again}, {args.ap} AP, the query's person under the same camera {camera}"
        f"{worn[args.clothes]}"
    )
    return "\n".join(lines) + "\n"
