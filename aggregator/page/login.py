"""The page to sign in at: a plain form, so that it works before anything is loaded, and with every password manager."""

from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in</title>
<link rel="stylesheet" href="/style.css">
</head>
<body style="margin: 0">
<main class="login card">
<h1>Sign in</h1>
<p class="soft">With the token of the file <code>admin-token</code> in the aggregator's state directory,
or a user's.</p>
{trouble}
<form method="post" action="/login">
<input type="hidden" name="next" value="{target}">
<label class="field">Token
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button class="button main-one" type="submit">Sign in</button>
</form>
</main>
</body>
</html>
"""


def login_page(target: str, trouble: str = "") -> str:
    """The page as HTML.

    Args:
        target: where to go then.
        trouble: what went wrong, if something did.
    """
    notice = f'<p class="notice" role="alert">{escape(trouble)}</p>' if trouble else ""
    return _PAGE.format(target=escape(target, quote=True), trouble=notice)
