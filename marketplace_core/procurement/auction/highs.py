"""HiGHS, as a function: a program in, what was found out.

A known solution is not handed to it but a cutoff: given a start, 1.16.0 was seen to
lose part of the cost in its presolve and to claim a wrong optimum (ADR 19).

One thread, a fixed random seed and no clock but the solver's own: what a node limit ends
is the same again, what a time limit ends is not.
"""

from __future__ import annotations

import math
from typing import Final

import highspy
import msgspec
import numpy as np

from marketplace_core.procurement.auction.program import Program
from marketplace_core.procurement.auction.tableau import FloatArray

FEASIBILITY: Final = 1e-9
"""How far a row may be broken; rows are scaled to about 1."""
LOOSE: Final = 1e-7
"""The same where that is too strict."""
_ENDED: Final = {
    highspy.HighsModelStatus.kOptimal,
    highspy.HighsModelStatus.kInfeasible,
    highspy.HighsModelStatus.kObjectiveBound,
    highspy.HighsModelStatus.kUnboundedOrInfeasible,
}


class Solved(msgspec.Struct, frozen=True, kw_only=True):
    """What HiGHS found."""

    x: FloatArray | None
    """The best that was found; None when nothing was."""
    bound: float
    """Nothing costs less; infinite when nothing is possible (below the cutoff, if there is one)."""
    reduced_cost: FloatArray | None
    """Of a relaxation: what the cost rises by with each column, at least."""
    ended: bool
    """Whether the search ran to its end."""
    nodes: int


def relax(program: Program, seconds: float) -> Solved:
    """Solve without wholeness."""
    solver = _solver(program, integer=False, tolerance=FEASIBILITY)
    solver.setOptionValue("time_limit", max(seconds, 0.01))
    solver.run()
    status, solution = solver.getModelStatus(), solver.getSolution()
    if status != highspy.HighsModelStatus.kOptimal:
        bound = math.inf if status == highspy.HighsModelStatus.kInfeasible else -math.inf
        return Solved(x=None, bound=bound, reduced_cost=None, ended=status in _ENDED, nodes=0)
    return Solved(
        x=np.array(solution.col_value),
        bound=float(solver.getInfo().objective_function_value),
        reduced_cost=np.array(solution.col_dual),
        ended=True,
        nodes=0,
    )


def solve(
    program: Program,
    seconds: float,
    *,
    cutoff: float = math.inf,
    nodes: int | None = None,
    gap: float = 0.0,
) -> Solved:
    """Branch and bound, up to `seconds` and `nodes`, to a relative `gap`, below `cutoff`.

    A solution that breaks a row by a little more than it may makes HiGHS give up: then it is
    asked again less strictly.
    """
    if not program.integer.any():
        return relax(program, seconds)
    for tolerance in (FEASIBILITY, LOOSE):
        solver = _solver(program, integer=True, tolerance=tolerance)
        solver.setOptionValue("time_limit", max(seconds, 0.01))
        solver.setOptionValue("mip_rel_gap", gap)
        solver.setOptionValue("mip_abs_gap", 0.0)
        if nodes is not None:
            solver.setOptionValue("mip_max_nodes", nodes)
        if math.isfinite(cutoff):
            solver.setOptionValue("objective_bound", cutoff)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kSolveError:
            break
    return _found(solver, program, cutoff)


def _found(solver: highspy.Highs, program: Program, cutoff: float) -> Solved:
    info, status = solver.getInfo(), solver.getModelStatus()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    ended = status in _ENDED
    bound = float(info.mip_dual_bound)
    x = np.array(solver.getSolution().col_value) if feasible else None
    if ended and x is None:
        bound = cutoff
    if x is not None and not _costs(program, x, info.objective_function_value):
        bound, ended = -math.inf, False
    return Solved(
        x=x,
        bound=-math.inf if math.isnan(bound) else min(bound, cutoff),
        reduced_cost=None,
        ended=ended,
        nodes=int(info.mip_node_count),
    )


def _costs(program: Program, x: FloatArray, claimed: float) -> bool:
    """Whether a solution costs what the solver says: else nothing it says is believed."""
    return math.isclose(float(program.cost @ x), claimed, rel_tol=1e-6, abs_tol=1e-6)


class _Silent(highspy.Highs):
    """HiGHS without callbacks: enabling them writes its banner, whatever the options say."""

    def enableCallbacks(self) -> None:  # noqa: N802 - the library's name
        """Nothing here is called back."""


def _solver(program: Program, *, integer: bool, tolerance: float) -> highspy.Highs:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = program.columns, len(program.row_lower)
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = program.start.astype(np.int32)
    model.a_matrix_.index_ = program.row.astype(np.int32)
    model.a_matrix_.value_ = program.value
    if integer:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(whole)] for whole in program.integer]
    solver = _Silent()  # type: ignore[no-untyped-call]
    for name, value in _OPTIONS.items():
        solver.setOptionValue(name, value)
    for name in ("primal", "dual", "mip"):
        solver.setOptionValue(f"{name}_feasibility_tolerance", tolerance)
    solver.passModel(model)
    return solver


_OPTIONS: Final = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
}
