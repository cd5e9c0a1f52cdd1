"""Droveway: one engine for fleets of agents.

`Agent` and `AsyncAgent` talk to a model, `AgentSupervisor` to seventeen roles at once, and
`Engine` is the road that all of them share. Start with `Agent().chat("Hello")`: without keys in
the environment a sandbox inside the process answers.
"""

from droveway.agents.agent import AsyncAgent
from droveway.agents.limits import Limits
from droveway.agents.outcomes import Outcome, RunResult
from droveway.agents.reply import Reply, Spending, UsageReport
from droveway.agents.roles import Role
from droveway.agents.supervisor import AgentSupervisor, RoleEvent
from droveway.agents.sync_agent import Agent
from droveway.agents.tiering import route_to_model
from droveway.agents.tools import ToolResult
from droveway.agents.workflow import Task, TaskResult
from droveway.catalog.comparison import Savings
from droveway.chat import (
    Answer,
    Finished,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.engine.outbox import Retrying
from droveway.engine.savings import monthly_savings
from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CallerError,
    CancelledCallError,
    DeadlineExceededError,
    DrovewayError,
    InsufficientBalanceError,
    InternalServerError,
    LimitExceededError,
    NoAnswerError,
    NotFoundError,
    OutputValidationError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestTooLargeError,
    SettingsError,
    StreamTruncatedError,
    ToolError,
    UnknownRoleError,
    UnpricedModelError,
    UnprocessableEntityError,
    UpstreamError,
)
from droveway.money import Money
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Settings, Timeout

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Agent",
    "AgentSupervisor",
    "Answer",
    "AsyncAgent",
    "AuthenticationError",
    "BadRequestError",
    "CallerError",
    "CancelledCallError",
    "DeadlineExceededError",
    "DrovewayError",
    "Engine",
    "Finished",
    "InsufficientBalanceError",
    "InternalServerError",
    "LimitExceededError",
    "Limits",
    "Message",
    "Money",
    "NoAnswerError",
    "NotFoundError",
    "Outcome",
    "OutputValidationError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "ReasoningDelta",
    "Reply",
    "RequestTooLargeError",
    "RetryPolicy",
    "Retrying",
    "Role",
    "RoleEvent",
    "RunResult",
    "Savings",
    "Settings",
    "SettingsError",
    "Spending",
    "StillClock",
    "StreamTruncatedError",
    "Task",
    "TaskResult",
    "TextDelta",
    "Timeout",
    "ToolCall",
    "ToolCallDelta",
    "ToolError",
    "ToolResult",
    "UnknownRoleError",
    "UnpricedModelError",
    "UnprocessableEntityError",
    "UpstreamError",
    "Usage",
    "UsageReport",
    "UsageUpdate",
    "monthly_savings",
    "route_to_model",
]
